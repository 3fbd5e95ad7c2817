"""Tiles of one grey value are run once for a plane, and nobody can tell from the answer."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from model.stitching import reflect_indices
from model.tiling import Tile, TilePlan, plan_with_stride, valid_unet_geometry
from service.engine.images.plane import chosen_run
from service.engine.request import Answer, SegmentRequest
from service.engine.scheduling.blank import BlankTile
from service.engine.scheduling.scheduler import BatchDone, run_batch
from service.engine.stages import accepted
from tests.engines import running
from tests.packages import edit, write_tiny_package
from tests.service.engine.scheduling.test_scheduler import job

GEOMETRY = valid_unet_geometry(1)


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    """A net that takes so much memory that its tiles are small."""
    package = write_tiny_package(tmp_path / "packages", geometry=GEOMETRY)
    edit(package, lambda rdf: rdf["config"]["unet_service"].update(activation_bytes_per_pixel=5000))
    return package.path.parent


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Tiles of each call of the net."""
    calls: list[int] = []

    def counted(*arguments: Any) -> Any:
        run, reduces = chosen_run(*arguments)

        def counting(tiles: NDArray[np.float32]) -> NDArray[np.float32]:
            calls.append(len(tiles))
            return run(tiles)

        return counting, reduces

    monkeypatch.setattr(accepted, "chosen_run", counted)
    return calls


def missing_fields(third: int) -> NDArray[np.uint16]:
    """Fields of noise; two of them are missing, and part of a third, which may be of another value."""
    image = np.random.default_rng(1).integers(0, 4000, (600, 900), dtype=np.uint16)
    image[:350, 250:] = 40
    image[350:, :300] = 40
    image[400:, 600:] = third
    return image


def answers(
    packages: Path, image: NDArray[np.uint16], requests: Sequence[SegmentRequest]
) -> list[tuple[bytes, Mapping[str, Any]]]:
    async def scenario() -> list[Answer]:
        # one tile in each call, so that it is sure which of two comes first
        async with running(packages, memory_budget_mb=128, batch_tiles=1) as engine:
            return [await engine.segment(npy(image), request) for request in requests]

    return [(answer.body.read(), answer.receipt) for answer in asyncio.run(scenario())]


def npy(image: NDArray[np.uint16]) -> io.BytesIO:
    buffer = io.BytesIO()
    np.save(buffer, image)
    return buffer


def blank_tiles(image: NDArray[np.uint16], plan: TilePlan) -> int:
    """Tiles that show one value only, margins included, mirrored where they leave the image."""
    height, width = image.shape
    reads = (image[np.ix_(reflect_indices(tile.read.y, height), reflect_indices(tile.read.x, width))] for tile in plan)
    return sum(int(np.ptp(read)) == 0 for read in reads)


@pytest.mark.parametrize("third", [40, 1000])
def test_blank_tiles_are_run_once_and_the_answer_is_the_same(
    third: int, packages: Path, runs: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    image = missing_fields(third)
    requests = [SegmentRequest(output="probabilities", format="npy"), SegmentRequest(output="labels", format="tiff")]
    repeated = answers(packages, image, requests)
    tiles = repeated[0][1]["tiles"]
    plan = plan_with_stride((600, 900), GEOMETRY, tuple(tiles["stride_yx"]))
    blank = blank_tiles(image, plan)
    assert blank > 4
    if third == 40:
        assert sum(runs) == 2 * (len(plan) - blank + 1)
    runs.clear()
    monkeypatch.setattr(BlankTile, "like", lambda *_: None)
    assert answers(packages, image, requests) == repeated
    assert sum(runs) == 2 * len(plan)


def test_views_of_blank_tiles_are_all_run(packages: Path, runs: list[int]) -> None:
    """Their mean is written once the last of them is there; of none is anything written before."""
    ((_, receipt),) = answers(packages, missing_fields(40), [SegmentRequest(output="mask", mirror=True)])
    assert sum(runs) == receipt["tiles"]["count"] * 8


def test_a_stack_of_blank_planes_is_answered_plane_by_plane(packages: Path, runs: list[int]) -> None:
    image = np.full((3, 200, 200), 7, dtype=np.uint16)
    ((_, receipt),) = answers(packages, image, [SegmentRequest(output="labels", format="tiff")])
    assert receipt["output"]["objects"] == 0
    assert sum(runs) == 3


def test_only_the_time_of_what_is_run_counts_for_the_speed_of_the_net() -> None:
    """Reading takes a second of this clock, running ten."""
    now = 0.0

    def passes(seconds: float) -> None:
        nonlocal now
        now += seconds

    def net(tiles: NDArray[np.float32]) -> NDArray[np.float32]:
        passes(10)
        return tiles[:, :, 8:-8, 8:-8]

    async def scenario() -> list[BatchDone]:
        one = job(net, [3.0] * 5)
        read = one.read

        def slow_read(tile: Tile) -> NDArray[np.float32]:
            passes(1)
            return read(tile)

        one = replace(one, read=slow_read, repeat=lambda _done, _tile: True)
        tiles = list(one.tiles)
        return [run_batch([(one, tile) for tile in batch], lambda: now) for batch in (tiles[:1], tiles[1:4])]

    first, second = asyncio.run(scenario())
    assert (first.seconds, second.seconds, second.work) == (11, 0, 0)
