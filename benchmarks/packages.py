"""Memory of a service of many packages, each of which segments an image in turn.

    python -m benchmarks.packages [--copies 6] [--edge 2048] [--backend auto]

So many copies of ``nuclei``, each under a name of its own. A service whose nets each keep the memory of their largest
tile would grow with every one of them.
"""

from __future__ import annotations

import argparse
import io
import shutil
import tempfile
from pathlib import Path

import httpx
import numpy as np
import tifffile

from benchmarks.probes import listener
from clients.demo import running_service
from model.package import ZOO

_SOURCE = "nuclei"


def _copy(folder: Path, name: str) -> None:
    shutil.copytree(ZOO / _SOURCE, folder / name)
    description = folder / name / "rdf.yaml"
    description.write_text(description.read_text().replace(f"\nid: {_SOURCE}\n", f"\nid: {name}\n"))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--copies", type=int, default=6)
    parser.add_argument("--edge", type=int, default=2048, help="of the square image, px")
    parser.add_argument("--backend", default="auto", choices=["auto", "openvino", "cpu"])
    arguments = parser.parse_args()
    names = [f"{_SOURCE}-{number}" for number in range(arguments.copies)]
    noise = np.random.default_rng(0).gamma(2, 800, (arguments.edge, arguments.edge))
    image = io.BytesIO()
    tifffile.imwrite(image, noise.astype(np.uint16))
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            _copy(Path(folder), name)
        with (
            running_service(UNET_MODELS_DIR=folder, UNET_BACKEND=arguments.backend) as url,
            httpx.Client(base_url=url, timeout=600) as client,
        ):
            process = listener(url)
            print(f"{'package':>12} {'seconds':>8} {'MiB now':>8}")
            print(f"{'loaded':>12} {'':8} {process.memory_info().rss >> 20:8}")
            for name in names:
                answer = client.post("/segment", params={"model": name}, content=image.getvalue())
                answer.raise_for_status()
                taken_s = answer.elapsed.total_seconds()
                print(f"{name:>12} {taken_s:8.2f} {process.memory_info().rss >> 20:8}", flush=True)


if __name__ == "__main__":
    main()
