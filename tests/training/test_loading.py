"""Batches of tiles."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from training.data.datasets import load_images
from training.data.loading import Batch, finished, tile_batches
from training.data.tiles import TileDataset, prepare
from training.recipe import Recipe

NUMBERS = [3, 4, 9, 0]


@pytest.fixture
def tiles(nuclei_folder: Path, tiny_recipe: Recipe) -> TileDataset:
    images = load_images(nuclei_folder, tiny_recipe.data, 1, 2)
    wc = np.linspace(0.5, 1.5, len(tiny_recipe.targets.classes), dtype=np.float32)
    return TileDataset(prepare(images, tiny_recipe), tiny_recipe, wc)


def assert_same(ours: Batch, theirs: Batch) -> None:
    for one, other in zip(ours, theirs, strict=True):
        assert torch.equal(one, other)


@pytest.mark.filterwarnings("ignore:This DataLoader will create 2 worker processes")  # on machines with one CPU
@pytest.mark.parametrize("workers", [0, 2])
def test_batches_hold_the_tiles_in_the_order_of_their_numbers(tiles: TileDataset, workers: int) -> None:
    batches = list(tile_batches(tiles, NUMBERS, 2, workers, "cpu"))
    for batch, numbers in zip(batches, (NUMBERS[:2], NUMBERS[2:]), strict=True):
        one, other = (tiles[number] for number in numbers)
        assert_same(batch, (*(torch.stack(pair) for pair in zip(one, other, strict=True)),))  # type: ignore[arg-type]


def test_tiles_finished_after_the_workers_are_those_that_workers_finish(tiles: TileDataset) -> None:
    late = list(finished([[tiles.parts(number) for number in NUMBERS]], "cpu"))
    (early,) = tile_batches(tiles, NUMBERS, len(NUMBERS), 0, "cpu")
    assert len(late) == 1
    assert_same(late[0], early)


@pytest.mark.gpu
def test_a_gpu_finishes_them_alike(tiles: TileDataset) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    (early,) = tile_batches(tiles, NUMBERS, len(NUMBERS), 0, "cpu")
    (late,) = tile_batches(tiles, NUMBERS, len(NUMBERS), 1, "cuda")
    assert all(part.device.type == "cuda" for part in late)
    torch.testing.assert_close(late[0].cpu(), early[0], atol=1e-4, rtol=1e-4)
    assert (late[1].cpu() == early[1]).all()
    torch.testing.assert_close(late[2].cpu(), early[2], atol=1e-4, rtol=1e-4)
