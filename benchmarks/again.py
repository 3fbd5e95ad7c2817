"""The same image again against an image that is new: what trying a threshold, or saving a second format, takes.

    python -m benchmarks.again [--size 2048] [--output labels] [--repeats 3]

A service that runs ``nuclei`` on the fastest backend at hand gets, over HTTP, a 16-bit TIFF that it has not seen, and
the same one for another format and with another threshold (of a mask: with the same).
"""

from __future__ import annotations

import argparse
import io
import time

import httpx
import numpy as np
import tifffile

from benchmarks.turns import median_s, ratio
from clients.demo import running_service
from service.bench import blobs
from service.engine.packages.machine import this_machine


def tiff(size: int, number: int) -> bytes:
    """One of many pictures that differ."""
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, np.roll(blobs(size), 16 * number, axis=1))
    return buffer.getvalue()


def seconds(client: httpx.Client, body: bytes, **asked: str) -> float:
    """Seconds of one request."""
    began = time.perf_counter()
    client.post("/segment", params=asked, content=body).raise_for_status()
    return time.perf_counter() - began


def main() -> None:
    """Print seconds and ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=2048, help="edge of the image in px")
    parser.add_argument("--output", default="labels", choices=("labels", "mask", "probabilities"))
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    other = {"threshold": "0.6"} if options.output == "labels" else {}
    turns = []
    with running_service() as url, httpx.Client(base_url=url, timeout=600) as client:
        for number in range(options.repeats):
            body = tiff(options.size, number)
            turns.append(
                {
                    "new": seconds(client, body, output=options.output, format="tiff"),
                    "again": seconds(client, body, output=options.output, format="npy", **other),
                }
            )
    print(this_machine())
    print(
        f"{options.size} px, {options.output}: {median_s(turns, 'new'):.2f} s, again {median_s(turns, 'again'):.2f} s"
    )
    print(f"new over again {ratio(turns, 'new', 'again')}")


if __name__ == "__main__":
    main()
