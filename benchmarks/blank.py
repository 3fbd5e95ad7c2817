"""A mosaic of which fields are missing against a full one of the same size: what blank tiles cost.

    python -m benchmarks.blank [--size 8192] [--fields 4] [--missing 8] [--repeats 2]

A square 16-bit TIFF of blobs is cut into ``fields`` x ``fields`` fields, the last ``missing`` of which are black. Full
and partly missing mosaic take turns at a service that runs ``nuclei`` on the fastest backend at hand, over HTTP.
"""

from __future__ import annotations

import argparse
import io
import time
from functools import partial

import httpx
import tifffile

from benchmarks.serving import measured_service
from benchmarks.turns import median_s, ratio, take_turns
from service.bench import blobs
from service.engine.packages.machine import this_machine

_TIMEOUT_S = 3600


def mosaic(size: int, fields: int, missing: int) -> bytes:
    """TIFF of a mosaic of ``fields`` x ``fields`` fields, the last ``missing`` of which are black."""
    image = blobs(size)
    edge = -(-size // fields)
    for field in range(fields**2 - missing, fields**2):
        row, column = divmod(field, fields)
        image[row * edge : (row + 1) * edge, column * edge : (column + 1) * edge] = 0
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, image)
    return buffer.getvalue()


def seconds(client: httpx.Client, body: bytes) -> float:
    """Seconds of one request for a mask."""
    began = time.perf_counter()
    client.post("/segment", content=body, headers={"Content-Type": "image/tiff"}).raise_for_status()
    return time.perf_counter() - began


def main() -> None:
    """Print seconds and ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=8192, help="edge of the mosaic in px")
    parser.add_argument("--fields", type=int, default=4, help="fields along an edge")
    parser.add_argument("--missing", type=int, default=8, help="how many fields are black")
    parser.add_argument("--repeats", type=int, default=2)
    options = parser.parse_args()
    settings = {"UNET_DEADLINE_S": str(_TIMEOUT_S), "UNET_MAX_BACKLOG_S": str(_TIMEOUT_S)}
    with measured_service(**settings) as url, httpx.Client(base_url=url, timeout=_TIMEOUT_S) as client:
        bodies = {
            "full": mosaic(options.size, options.fields, 0),
            "missing": mosaic(options.size, options.fields, options.missing),
        }
        turns = take_turns({name: partial(seconds, client, body) for name, body in bodies.items()}, options.repeats)
    print(this_machine())
    print(f"{options.size} px, {options.missing} of {options.fields**2} fields missing")
    print(f"full {median_s(turns, 'full'):.1f} s, missing {median_s(turns, 'missing'):.1f} s")
    print(f"missing over full {ratio(turns, 'missing', 'full')}")


if __name__ == "__main__":
    main()
