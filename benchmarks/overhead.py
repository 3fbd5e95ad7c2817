"""Time of a whole request over a bare runtime loop on the same tiles.

    python -m benchmarks.overhead [--size 2048] [--repeats 7] [--backend cpu] [--precision auto]

The bare loop runs the package's session over the tiles of the same plan in batches of the same size, read and
normalised beforehand, and throws the answers away. The service is ``unet-service serve`` in a process of its own, asked
over HTTP for the PNG mask of a 16-bit TIFF. Both take turns, so that a noisy machine disturbs both alike; the figure is
the median of the turns' ratios.
"""

from __future__ import annotations

import argparse
import io
import itertools
import json
import math
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any, get_args

import httpx
import numpy as np
import tifffile
from numpy.typing import NDArray

from benchmarks.serving import measured_service
from model.normalization import fit
from model.package import ZOO
from model.planner import batch_room
from model.session import Backend, Precision
from model.stitching import read_tiles
from model.tiling import plan_with_stride
from service.engine.options import budget_of, plan_limits, session_options
from service.engine.packages.finding import find_packages
from service.engine.packages.loading import LoadedModel, load_model
from service.engine.packages.planning import most_batch_pixels
from service.engine.resources import available_cpus
from service.settings import Settings
from training.scene import NucleiScene
from training.synthetic import render_nuclei


def bare_batches(
    loaded: LoadedModel, settings: Settings, image_yxc: NDArray[Any], input_yx: tuple[int, int]
) -> list[NDArray[np.float32]]:
    """Normalised tiles (b, c, y, x) of an image, cut as a service says that it cuts it, as many a call as there."""
    spec = loaded.package.spec
    stride_yx = spec.geometry.y.stride_of(input_yx[0]), spec.geometry.x.stride_of(input_yx[1])
    tiles = iter(plan_with_stride((image_yxc.shape[0], image_yxc.shape[1]), spec.geometry, stride_yx))
    normalization = fit(spec.normalization, image_yxc)
    most = most_batch_pixels(loaded.session.backend, loaded.planner.max_tile_pixels)
    room = batch_room(math.prod(input_yx), settings.batch_tiles, most)
    batches = iter(lambda: list(itertools.islice(tiles, room)), [])
    return [read_tiles(image_yxc, batch, normalization) for batch in batches]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=2048, help="edge of the square image, px")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--backend", default="cpu", choices=["cuda", "tensorrt", "openvino", "cpu"])
    parser.add_argument("--precision", default="auto", choices=get_args(Precision))
    parser.add_argument("--package", type=Path, default=next(iter(find_packages([ZOO]).values())))
    arguments = parser.parse_args()
    backend: Backend = arguments.backend
    precision: Precision = arguments.precision
    image_yx, _ = render_nuclei(NucleiScene(size_yx=(arguments.size, arguments.size), bit_depth=16), seed=0)
    image_yxc = image_yx[..., np.newaxis]
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, image_yx)
    cache = tempfile.TemporaryDirectory()
    settings = Settings(backend=backend, precision=precision, cache_dir=cache.name)
    budget = budget_of(settings)
    loaded = load_model(arguments.package, session_options(settings, budget), plan_limits(settings, budget))
    turns: list[tuple[float, float]] = []
    served = measured_service(
        UNET_MODELS_DIR=str(arguments.package),
        UNET_BACKEND=backend,
        UNET_PRECISION=precision,
        UNET_CACHE_DIR=cache.name,
    )
    with cache, served as url, httpx.Client(base_url=url, timeout=600) as client:
        answer = client.post("/segment", content=buffer.getvalue()).raise_for_status()
        y, x = json.loads(answer.headers["X-UNet-Receipt"])["tiles"]["input_yx"]
        batches = bare_batches(loaded, settings, image_yxc, (y, x))

        def bare() -> float:
            started = time.perf_counter()
            for batch in batches:
                loaded.session.run(batch)
            return time.perf_counter() - started

        def whole() -> float:
            started = time.perf_counter()
            client.post("/segment", content=buffer.getvalue()).raise_for_status()
            return time.perf_counter() - started

        for repeat in range(arguments.repeats + 1):
            # whoever comes second finds the caches as the other left them: they take turns at that too
            pair = (bare(), whole()) if repeat % 2 else (whole(), bare())[::-1]
            if repeat:  # the first turn warms both up
                turns.append(pair)
    bare_s, whole_s = (statistics.median(times) for times in zip(*turns, strict=True))
    ratios = sorted(request_s / loop_s for loop_s, request_s in turns)
    session = loaded.session
    print(f"{loaded.package.spec.reference} on {session.provider} in {session.precision}, {available_cpus()} CPUs")
    count = sum(map(len, batches))
    print(f"{arguments.size} x {arguments.size} px uint16 TIFF -> PNG mask, {count} tiles of {y} x {x} px")
    print(f"bare loop {bare_s:.3f} s, whole request {whole_s:.3f} s, medians of {arguments.repeats} turns")
    print(f"ratio {statistics.median(ratios):.3f}, median of the turns; from {ratios[0]:.3f} to {ratios[-1]:.3f}")


if __name__ == "__main__":
    main()
