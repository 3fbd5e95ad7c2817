"""What others do with the same image, each in a process of its own that is asked to run once: see benchmarks.speed.

| rival         | what it runs on the 16-bit image                                                                 |
| ------------- | ------------------------------------------------------------------------------------------------ |
| `plain`       | ONNX Runtime in fp32, as it comes, over the paper's tiles: 572 px, 388 px apart                   |
| `monai`       | MONAI's `sliding_window_inference`, torch in fp32, windows of 512 px, overlap 0.25, as it comes  |
| `monai-tuned` | the same, channels last, with glibc's huge pages                                                 |
| `bioimageio`  | bioimageio.core's tiled prediction of the package, in the block that is fastest here             |

In their favour: their clocks leave out reading the file and writing the mask, and, save for `bioimageio`, which
normalises as the package says, what they get is normalised beforehand. `plain` throws its answers away; MONAI gets a
padded net of equal width and depth, whose layers need no context, and stops at the logits.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.worker import Job, LeftOut, Worker, answer, working
from model.normalization import fit
from model.package import Package, read_package
from model.stitching import read_tile
from model.tiling import AxisGeometry, Span, Tile, Window
from service.bench import blobs
from service.engine.resources import available_cpus

_PAPER_INPUT_PX = 572
_ROI_PX, _OVERLAP = 512, 0.25
BLOCKS_PX = (572, 700, 876, 1084, 1212)
_TUNABLES = "GLIBC_TUNABLES"


@dataclass(frozen=True, slots=True)
class Task:
    """What a rival is given."""

    package: Package
    image_yxc: NDArray[np.uint16]
    blocks_px: tuple[int, ...]
    """Edges of blocks to choose from."""


@dataclass(frozen=True, slots=True)
class Rival:
    """How a rival is made ready, and what its process needs from its start."""

    build: Callable[[Task], Job]
    environment: Mapping[str, str] = field(default_factory=dict)


def legal_edge(axis: AxisGeometry, most_px: int) -> int:
    """Largest legal input of at most ``most_px``; the smallest there is where all are larger."""
    return axis.minimum + max(0, most_px - axis.minimum) // axis.step * axis.step if axis.step else axis.minimum


def plain(task: Task) -> Job:
    """ONNX Runtime, as it comes, over the paper's tiles."""
    import onnxruntime as ort

    session = ort.InferenceSession(task.package.weights(), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    normalization = fit(task.package.spec.normalization, task.image_yxc)
    tiles = [
        read_tile(task.image_yxc, tile, normalization)[np.newaxis]
        for tile in _side_by_side(task.package.spec.geometry.y, task.image_yxc.shape)
    ]

    def run() -> None:
        for tile in tiles:
            session.run(None, {name: tile})

    return Job(f"ONNX Runtime {ort.__version__}, {len(tiles)} tiles of {tiles[0].shape[-1]} px", run)


def _side_by_side(axis: AxisGeometry, shape: Sequence[int]) -> Iterator[Tile]:
    """Tiles whose outputs touch, as the paper draws them."""
    edge = legal_edge(axis, _PAPER_INPUT_PX)
    stride = edge - 2 * axis.margin
    for top in range(0, shape[0], stride):
        for left in range(0, shape[1], stride):
            read = Window(*(Span(start - axis.margin, start - axis.margin + edge) for start in (top, left)))
            yield Tile(read, read, read)


def classic_size(weights: bytes) -> tuple[int, int]:
    """Base width and number of poolings of an exported U-Net, read off its ONNX graph.

    Raises
    ------
    LeftOut
        Where it has no 3x3 convolution.

    """
    import onnx

    graph = onnx.load_from_string(weights).graph
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    # weights may be stored in fp16 and cast when loaded
    shapes |= {node.output[0]: shapes.get(node.input[0], ()) for node in graph.node if node.op_type == "Cast"}
    convolutions = (shapes.get(node.input[1], ()) for node in graph.node if node.op_type == "Conv")
    width = next((shape[0] for shape in convolutions if shape[2:] == (3, 3)), None)
    if width is None:
        raise LeftOut("the package's graph has no 3x3 convolution to take the width from; use another package")
    return width, sum(node.op_type == "MaxPool" for node in graph.node)


def monai(task: Task, *, tuned: bool = False) -> Job:
    """MONAI's sliding window over a padded net of equal width and depth, with random weights."""
    import torch

    from benchmarks.padded_unet import PaddedUNet
    from model.unet import UNet

    try:
        from monai.inferers import sliding_window_inference
    except ModuleNotFoundError as error:
        raise LeftOut(f"{error.name} is not installed; pip install -e '.[rivals]'") from error
    torch.manual_seed(0)
    torch.set_num_threads(available_cpus())
    spec = task.package.spec
    width, depth = classic_size(task.package.weights())
    net = PaddedUNet(UNet(len(spec.channels), len(spec.classes), width, depth))
    image = torch.from_numpy(fit(spec.normalization, task.image_yxc).apply(task.image_yxc)[np.newaxis])
    if tuned:
        net = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # not in torch's own stubs
        image = image.to(memory_format=torch.channels_last)

    def run() -> None:
        with torch.inference_mode():
            sliding_window_inference(image, (_ROI_PX, _ROI_PX), sw_batch_size=1, predictor=net, overlap=_OVERLAP)

    how = f"channels last, {os.environ.get(_TUNABLES, 'no huge pages')}" if tuned else "as it comes"
    what = f"MONAI {version('monai')}, torch {version('torch')}, width {width}, depth {depth}, roi {_ROI_PX}"
    return Job(f"{what}, overlap {_OVERLAP}, {how}", run)


def monai_tuned(task: Task) -> Job:
    """See :func:`monai`; its process is started with huge pages."""
    return monai(task, tuned=True)


def bioimageio(task: Task) -> Job:
    """bioimageio.core's prediction by blocks, in the fastest of those that fit, each tried once."""
    from bioimageio.core import Sample, Tensor, create_prediction_pipeline, load_description
    from loguru import logger

    from benchmarks.halo_package import with_halo

    logger.disable("bioimageio")
    spec = task.package.spec
    size_yx = task.image_yxc.shape[:2]
    folder = tempfile.TemporaryDirectory()
    package = with_halo(task.package, Path(folder.name))
    geometry = package.spec.geometry
    edges = sorted({legal_edge(geometry.y, block) for block in task.blocks_px} & set(range(1, min(size_yx) + 1)))
    if not edges:
        raise LeftOut(f"no legal block of {task.blocks_px} px fits {size_yx[0]} x {size_yx[1]} px; name smaller ones")
    # opened once and kept: predict() would load the weights anew for every image
    pipeline = create_prediction_pipeline(load_description(package.path))
    pipeline.load()
    image = np.moveaxis(task.image_yxc, -1, 0)[np.newaxis].astype(np.float32)

    def run(edge: int) -> None:
        # made here: create_sample_for_model() refuses images of sizes that the net does not take in one piece
        tensor = Tensor.from_numpy(image, dims=("batch", "channel", "y", "x"))
        sample = Sample(members={spec.input_name: tensor}, stat={}, id="image")
        pipeline.predict_sample_with_fixed_blocking(sample, {spec.input_name: {"y": edge, "x": edge}})

    def seconds(edge: int) -> float:
        started = time.perf_counter()
        run(edge)
        return time.perf_counter() - started

    run(edges[0])
    tried = {edge: seconds(edge) for edge in edges}
    best = min(tried, key=lambda edge: tried[edge])
    others = ", ".join(f"{edge} px {taken:.1f} s" for edge, taken in tried.items())
    what = f"bioimageio.core {version('bioimageio.core')}, blocks of {best} px, halo {geometry.y.halo} ({others})"
    return Job(what, lambda: run(best), {"folder": folder.name, "tried_s": tried})


RIVALS: dict[str, Rival] = {
    "plain": Rival(plain),
    "monai": Rival(monai),
    "monai-tuned": Rival(monai_tuned, {_TUNABLES: "glibc.malloc.hugetlb=1"}),
    "bioimageio": Rival(bioimageio, {"TQDM_DISABLE": "1"}),
}


def starting(name: str, package: Path, size: int, blocks_px: Sequence[int]) -> AbstractContextManager[Worker]:
    """Start a rival on the image of ``size`` x ``size`` px; raises :class:`LeftOut` where it cannot run here."""
    arguments: list[Any] = [name, "--package", package, "--size", size, "--blocks", *blocks_px]
    return working("benchmarks.rivals", [str(argument) for argument in arguments], RIVALS[name].environment)


def main() -> None:
    """Be a rival for :func:`starting`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=RIVALS)
    parser.add_argument("--package", type=Path, required=True)
    parser.add_argument("--size", type=int, required=True, help="edge of the square image, px")
    parser.add_argument("--blocks", type=int, nargs="+", default=BLOCKS_PX, help="edges of blocks to try, px")
    arguments = parser.parse_args()

    def build() -> Job:
        package = read_package(arguments.package)
        image_yxc = np.repeat(blobs(arguments.size)[..., np.newaxis], len(package.spec.channels), axis=-1)
        return RIVALS[arguments.name].build(Task(package, image_yxc, tuple(arguments.blocks)))

    answer(build)


if __name__ == "__main__":
    main()
