"""Memory of the service while images of ever new sizes come.

    python -m benchmarks.growth [--images 450] [--clients 3] [--budget-mb 128] [--backend auto]

Images of 32 to 1260 px a side, 16 bit, every tenth a stack of three, go to both packages that ship, for all kinds of
output and format; the same in every run. A service that keeps what each size took would grow with their number.
"""

from __future__ import annotations

import argparse
import io
import random
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any

import httpx
import numpy as np
import tifffile

from benchmarks.probes import listener
from benchmarks.serving import measured_service

_REPORTS = 10
_FORMATS = {
    "mask": ("png", "tiff", "rle", "geojson", "npy"),
    "labels": ("tiff", "coco", "geojson", "npy", "csv"),
    "probabilities": ("tiff", "npy"),
}


def _asked(images: int) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """File and parameters of each request."""
    for number in range(images):
        draw = random.Random(number)  # noqa: S311 - no secret
        height, width = (int(2 ** draw.uniform(5, 10.3)) for _ in "yx")
        noise = np.random.default_rng(number).gamma(2, 80, (height, width))
        rows, columns = np.mgrid[:height, :width] / 9
        image_yx = (noise + 20_000 * (np.sin(rows) * np.sin(columns) > 0.5)).astype(np.uint16)
        buffer = io.BytesIO()
        stack = number % 10 == 0
        tifffile.imwrite(
            buffer,
            np.stack([image_yx] * 3) if stack else image_yx,
            compression=draw.choice([None, "zlib", "lzw"]),
            metadata={"axes": "ZYX" if stack else "YX"},
        )
        output = draw.choice(["mask", "labels", "labels", "probabilities"])
        model = draw.choice(["nuclei", "phase-t98g"])
        yield buffer.getvalue(), {"output": output, "format": draw.choice(_FORMATS[output]), "model": model}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=450)
    parser.add_argument("--clients", type=int, default=3)
    parser.add_argument("--budget-mb", type=int, default=128, help="UNET_MEMORY_BUDGET_MB")
    parser.add_argument("--backend", default="auto", choices=["auto", "openvino", "cpu"])
    arguments = parser.parse_args()
    settings = {"UNET_BACKEND": arguments.backend, "UNET_MEMORY_BUDGET_MB": str(arguments.budget_mb)}
    with (
        measured_service(UNET_MODELS_DIR="zoo", **settings) as url,
        httpx.Client(base_url=url, timeout=600) as client,
        ThreadPoolExecutor(arguments.clients) as clients,
    ):
        process = listener(url)

        def ask(asked: tuple[bytes, dict[str, Any]]) -> int:
            body, parameters = asked
            return client.post("/segment", params=parameters, content=body).status_code

        print(f"{'images':>8} {'MiB now':>8}  answers")
        print(f"{0:8} {process.memory_info().rss >> 20:8}")
        answers: Counter[int] = Counter()
        waiting = _asked(arguments.images)
        while part := list(islice(waiting, -(-arguments.images // _REPORTS))):
            answers.update(clients.map(ask, part))
            print(f"{answers.total():8} {process.memory_info().rss >> 20:8}  {dict(answers)}", flush=True)


if __name__ == "__main__":
    main()
