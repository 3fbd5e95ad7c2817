"""Memory of a service of many packages, each of which segments an image in turn, and what taking turns costs.

    python -m benchmarks.packages [--copies 6] [--edge 2048] [--backend auto] [--precision auto] [--repeats 5]

So many copies of ``nuclei``, each under a name of its own. A service whose nets each keep the memory of their largest
tile would grow with every one of them. Then two clients at a time ask for one package, and for two, whose tiles take
turns: the ratio is what it costs that one net gives its memory back before the other runs.
"""

from __future__ import annotations

import argparse
import io
import shutil
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import httpx
import numpy as np
import tifffile

from benchmarks.probes import listener
from benchmarks.serving import measured_service
from model.package import ZOO

_SOURCE = "nuclei"


def _copy(folder: Path, name: str) -> None:
    shutil.copytree(ZOO / _SOURCE, folder / name)
    description = folder / name / "rdf.yaml"
    description.write_text(description.read_text().replace(f"\nid: {_SOURCE}\n", f"\nid: {name}\n"))


def _segment(client: httpx.Client, image: bytes, name: str) -> float:
    """Seconds of one request."""
    answer = client.post("/segment", params={"model": name}, content=image)
    answer.raise_for_status()
    return answer.elapsed.total_seconds()


def _compare(client: httpx.Client, image: bytes, names: list[str], repeats: int) -> None:
    """Print how long two requests at a time take for one package and for two, in turns, and their ratio."""
    ratios, seconds = [], []
    with ThreadPoolExecutor(2) as clients:
        for _ in range(repeats):
            taken = []
            for asked in ([names[0]] * 2, names[:2]):
                started = time.perf_counter()
                list(clients.map(partial(_segment, client, image), asked))
                taken.append(time.perf_counter() - started)
            seconds.append(taken)
            ratios.append(taken[1] / taken[0])
    one, two = (statistics.median(column) for column in zip(*seconds, strict=True))
    spread = f"{min(ratios):.3f} to {max(ratios):.3f}"
    print(f"two at a time: of one package {one:.2f} s, of two {two:.2f} s, {statistics.median(ratios):.3f} ({spread})")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--copies", type=int, default=6)
    parser.add_argument("--edge", type=int, default=2048, help="of the square image, px")
    parser.add_argument("--backend", default="auto", choices=["auto", "openvino", "cpu"])
    parser.add_argument("--precision", default="auto", choices=["auto", "int8", "bf16", "fp32"])
    parser.add_argument("--repeats", type=int, default=5, help="of two requests at a time; 0 for none")
    arguments = parser.parse_args()
    names = [f"{_SOURCE}-{number}" for number in range(arguments.copies)]
    noise = np.random.default_rng(0).gamma(2, 800, (arguments.edge, arguments.edge))
    image = io.BytesIO()
    tifffile.imwrite(image, noise.astype(np.uint16))
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            _copy(Path(folder), name)
        with (
            measured_service(
                UNET_MODELS_DIR=folder, UNET_BACKEND=arguments.backend, UNET_PRECISION=arguments.precision
            ) as url,
            httpx.Client(base_url=url, timeout=600) as client,
        ):
            process = listener(url)
            print(f"{'package':>12} {'seconds':>8} {'MiB now':>8}")
            print(f"{'loaded':>12} {'':8} {process.memory_info().rss >> 20:8}")
            for name in names:
                taken_s = _segment(client, image.getvalue(), name)
                print(f"{name:>12} {taken_s:8.2f} {process.memory_info().rss >> 20:8}", flush=True)
            if len(names) > 1 and arguments.repeats:
                _compare(client, image.getvalue(), names, arguments.repeats)


if __name__ == "__main__":
    main()
