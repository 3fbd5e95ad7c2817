"""Batches of tiles: made by worker processes, and finished on the GPU where there is one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from training.data.tiles import TileDataset, TileParts
from training.errors import RecipeError

_AHEAD_TILES = 8
"""Tiles that each worker makes ahead; the parts of each hold some ten files open until they are used."""

Batch = tuple[Tensor, Tensor, Tensor]
"""Images (b, c, i, i), targets (b, o, o) and weights (b, o, o)."""


class _Parts(Dataset[TileParts]):
    """The tiles of a dataset before their interpolation."""

    def __init__(self, tiles: TileDataset) -> None:
        self._tiles = tiles

    def __getitem__(self, number: int) -> TileParts:
        return self._tiles.parts(number)


def require_workers(workers: int) -> None:
    """Make sure that there can be so many processes.

    Raises
    ------
    RecipeError
        Where there are fewer than none.

    """
    if workers < 0:
        raise RecipeError(f"--workers {workers} is no number of processes; give 0 (this one makes the tiles) or more")


def tile_batches(tiles: TileDataset, numbers: Sequence[int], batch: int, workers: int, device: str) -> Iterator[Batch]:
    """Batches of the tiles ``numbers``, in order.

    Parameters
    ----------
    tiles
        Tiles by number.
    numbers
        Which, ``batch`` at a time.
    workers
        Processes that make tiles; 0: this one.
    device
        ``cpu``: the workers do everything. ``cuda``: they draw and look up, interpolation and grey values are left to
        the GPU. The random numbers are the same.

    """
    prefetch = max(2, _AHEAD_TILES // batch) if workers else None  # in batches
    if device == "cpu":
        return iter(DataLoader(tiles, batch, sampler=numbers, num_workers=workers, prefetch_factor=prefetch))
    loader = DataLoader(
        _Parts(tiles), batch, sampler=numbers, num_workers=workers, prefetch_factor=prefetch, collate_fn=list
    )
    return finished(loader, device)


def finished(batches: Iterable[list[TileParts]], device: str) -> Iterator[Batch]:
    """Finish tiles on a device, batch by batch."""
    for parts in batches:
        images, targets, weights = zip(*(part.finish(device) for part in parts), strict=True)
        yield torch.stack(images), torch.stack(targets), torch.stack(weights)
