"""An image beyond the memory budget against one within it: time per pixel, and the memory of the service.

    python -m benchmarks.bounded [--size 32768] [--reference 4096] [--budget-mb 2048] [--output labels]

Both are tiled 16-bit TIFFs of the same content: the large one repeats the small one, so that a pixel of either costs
the net, the labels and the codecs the same. The service runs in a process of its own with a small net that calls
foreground what is bright: there are objects of the size of cells to be labelled, and beside so small a net decoding,
labelling and encoding weigh as much as they ever do. It is asked over HTTP for a TIFF. Uploads and answers stand on
disk on both sides. The small image is asked for before and after the large one.

Memory is read from the kernel while the large image runs. Anonymous memory is the service's own; file-backed memory is
libraries and the mapped part of the spool, which the system takes back when it needs room. The peak is that of both.

At full size it takes minutes, and 45 GB in the temporary folder (`--folder`), which must be on a disk; `--size 8192
--reference 1024 --budget-mb 640` shows the same in seconds.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import tifffile
from numpy.typing import NDArray

from benchmarks.probes import listener
from benchmarks.random_package import passing_net, write_package
from benchmarks.serving import measured_service
from model.label_rule import LabelRule
from service.bench import blobs
from service.engine.packages.machine import this_machine

_TILE_PX = 512
_PIECE_BYTES = 1 << 20
_THRESHOLD = 0.6  # of the grey range: blobs stand apart, some 300,000 of them in a 32,768 px image
_TIMEOUT_S = 86_400
_REPEATS = 2  # of the small image, on either side of the large one


@dataclass(slots=True)
class Watch:
    """Most memory of a process, bytes, by kind, sampled in a thread between ``with`` and its end."""

    process: psutil.Process
    peaks: dict[str, int] = field(default_factory=dict)
    _ended: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> Watch:
        self._thread = threading.Thread(target=self._sample)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        if self._thread is not None:
            self._thread.join()

    def _sample(self) -> None:
        while not self._ended.wait(0.02):
            found = resident(self.process.pid)
            self.peaks = {name: max(found[name], self.peaks.get(name, 0)) for name in found}


def resident(pid: int) -> dict[str, int]:
    """Resident memory of a process, bytes: anonymous, file-backed, and both (shared memory counts as file-backed)."""
    lines = (line.split() for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    kib = {words[0]: int(words[1]) for words in lines if words[0] in {"RssAnon:", "RssFile:", "RssShmem:"}}
    anonymous, backed = kib["RssAnon:"] << 10, (kib["RssFile:"] + kib["RssShmem:"]) << 10
    return {"anonymous": anonymous, "file-backed": backed, "both": anonymous + backed}


def write_image(path: Path, unit_yx: NDArray[np.uint16], size: int) -> Path:
    """Write a square of ``size`` pixels that repeats ``unit_yx``, tile by tile."""
    edge = unit_yx.shape[0]

    def tiles() -> Iterator[NDArray[np.uint16]]:
        for top in range(0, size, _TILE_PX):
            for left in range(0, size, _TILE_PX):
                y, x = top % edge, left % edge
                yield unit_yx[y : y + _TILE_PX, x : x + _TILE_PX]

    tifffile.imwrite(
        path,
        tiles(),
        shape=(size, size),
        dtype=np.uint16,
        tile=(_TILE_PX, _TILE_PX),
        compression="zlib",
        photometric="minisblack",
        bigtiff=True,
    )
    return path


def ask(client: httpx.Client, image: Path, answer: Path, output: str) -> tuple[float, str]:
    """Send a file and write the answer to another one; its seconds, and those of the stages."""
    started = time.perf_counter()
    asked: dict[str, Any] = {"params": {"output": output, "format": "tiff"}}
    with (
        image.open("rb") as body,
        client.stream("POST", "/segment", content=iter(lambda: body.read(_PIECE_BYTES), b""), **asked) as response,
        answer.open("wb") as target,
    ):
        if response.is_error:
            raise SystemExit(f"the service answered {response.status_code}: {response.read().decode()}")
        for piece in response.iter_bytes(_PIECE_BYTES):
            target.write(piece)
    return time.perf_counter() - started, response.headers["Server-Timing"]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=32_768, help="edge of the large image, px: a multiple of the other")
    parser.add_argument("--reference", type=int, default=4096, help="edge of the small image, px: a multiple of 512")
    parser.add_argument("--budget-mb", type=int, default=2048)
    parser.add_argument("--output", default="labels", choices=["mask", "labels", "probabilities"])
    parser.add_argument("--method", default="components", choices=["components", "watershed"])
    parser.add_argument("--width", type=int, default=4)
    parser.add_argument("--depth", type=int, default=2)
    parser.add_argument("--backend", default="cpu", choices=["cuda", "tensorrt", "openvino", "cpu"])
    parser.add_argument("--folder", type=Path, help="where files go; the temporary folder if not given")
    arguments = parser.parse_args()
    machine = this_machine()
    print(f"{machine.cpu}, {machine.cpus} CPUs, {machine.memory_bytes >> 20} MiB, {machine.runtimes}")
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        rule = LabelRule(method=arguments.method, seed_threshold=0.8)
        net = passing_net(arguments.width, arguments.depth, gain=40.0, threshold=_THRESHOLD)
        package = write_package(net, folder, "small", rule)
        unit = blobs(arguments.reference)
        sizes = (arguments.reference, arguments.size)
        images = [write_image(folder / f"{size}.tif", unit, size) for size in sizes]
        settings = {
            "UNET_MODELS_DIR": str(package.path),
            "UNET_BACKEND": arguments.backend,
            "UNET_MEMORY_BUDGET_MB": str(arguments.budget_mb),
            "UNET_MAX_BODY_MB": str((images[1].stat().st_size >> 20) + 1),
            "UNET_SPOOL_DIR": name,
            "UNET_SPOOL_MB": "0",
            "UNET_CACHE_DIR": str(folder / "speeds"),
            "UNET_DEADLINE_S": str(_TIMEOUT_S),
            "UNET_MAX_BACKLOG_S": str(_TIMEOUT_S),
            "TMPDIR": name,
        }
        small: list[float] = []
        with measured_service(**settings) as url, httpx.Client(base_url=url, timeout=_TIMEOUT_S) as client:
            process = psutil.Process(listener(url).pid)

            def ask_for_small() -> str:
                stages = ""
                for _ in range(_REPEATS):
                    seconds, stages = ask(client, images[0], folder / "answer.tif", arguments.output)
                    small.append(seconds)
                return stages

            ask(client, images[0], folder / "answer.tif", arguments.output)  # warms up
            stages = [ask_for_small()]
            idle = resident(process.pid)
            with Watch(process) as watch:
                large_s, large_stages = ask(client, images[1], folder / "large.tif", arguments.output)
            stages.append(large_stages)
            ask_for_small()
        with tifffile.TiffFile(folder / "large.tif") as file:
            page = file.pages.first
            print(f"answer: {page.shape} {page.dtype}, {file.filehandle.size >> 20} MiB")
    costs = [seconds / size**2 * 1e9 for seconds, size in zip((statistics.median(small), large_s), sizes, strict=True)]
    for size, cost, parts in zip(sizes, costs, stages, strict=True):
        print(f"{size} x {size} px uint16 tiled TIFF -> {arguments.output} TIFF: {cost:.1f} ns/px; {parts}")
    print(f"ratio {costs[1] / costs[0]:.3f}; small image from {min(small):.2f} to {max(small):.2f} s")
    for kind, peak in watch.peaks.items():
        print(f"memory, {kind}: peak {peak >> 20} MiB, before {idle[kind] >> 20} MiB")


if __name__ == "__main__":
    main()
