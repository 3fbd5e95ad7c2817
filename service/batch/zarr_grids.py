"""Where the pixels of a label image lie, at each resolution: where those of its source do, or what the receipt tells.

Source: https://ngff.openmicroscopy.org/0.5 and 0.4, sections "axes", "multiscales" and "labels".
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from model.images import FormatError
from service.batch.zarr_metadata import Level, Place, Resolution, declared_shape, is_zarr, level_of
from service.batch.zarr_packed import place_of

_LARGEST_LAST_PX = 512
"""Height and width of the lowest resolution, where the source has none to go by."""
_MOST_LEVELS = 32
"""Halving comes to one pixel before."""
_TYPES = {"t": "time", "z": "space", "y": "space", "x": "space"}
_ORDER = "tizyx"
"""In which axes stand, slowest first."""


@dataclass(frozen=True, slots=True)
class Grid:
    """Pixels of one resolution."""

    shape: tuple[int, ...]
    scale: tuple[float, ...]
    """Distance of two pixels along each axis, in its unit."""
    translation: tuple[float, ...]
    """Of the first pixel."""


@dataclass(frozen=True, slots=True)
class Grids:
    """All resolutions of a label image, the full one first."""

    axes: str
    """A letter for each, slowest first: t, z, y and x, and i for planes of unknown meaning beside a z."""
    units: tuple[str, ...]
    """Of the axes, empty where none is known."""
    levels: tuple[Grid, ...]
    order: tuple[int, ...]
    """Which axis of the answer each of them is."""
    zarr_format: Literal[2, 3] = 2
    """Version of Zarr: that of the source."""

    def described(self) -> list[dict[str, str]]:
        """Axes as NGFF has them."""
        return [
            {"name": axis} | ({"type": _TYPES[axis]} if axis in _TYPES else {}) | ({"unit": unit} if unit else {})
            for axis, unit in zip(self.axes, self.units, strict=True)
        ]


def grids_of(source: Path, receipt: Mapping[str, Any], shape: Sequence[int]) -> Grids:
    """Resolutions of a label image: as many as its source has in OME-Zarr, of the same sizes and at the same places.

    Of another source, or one whose axes were read as others than they are: halves of halves, until they are small.

    Parameters
    ----------
    source
        The image.
    receipt
        Of its segmentation.
    shape
        Lengths of the axes of the answer: those of its stack, y and x.

    """
    letters = receipt["input"]["stack_axes"].lower() + "yx"
    if "z" not in letters:
        letters = letters.replace("i", "z")  # as ImageJ reads planes of which nobody says what they are
    order = tuple(sorted(range(len(letters)), key=lambda axis: _ORDER.index(letters[axis])))
    axes, full = "".join(letters[axis] for axis in order), tuple(shape[axis] for axis in order)
    scale, units = _told(axes, receipt)
    told = Grids(axes, units, _halved(full, scale), order)
    with suppress(FormatError, OSError), place_of(source) as place:  # which may have gone since it was read
        if not is_zarr(place):
            return told
        level = level_of(place)
        told = replace(told, zarr_format=3 if (place / "zarr.json").exists() else 2)
        if levels := _of_source(place, level, axes, full):
            units = tuple(level.units[level.axes.index(axis)] if axis in level.axes else "" for axis in axes)
            return replace(told, units=units, levels=levels)
    return told


def _of_source(source: Place, level: Level, axes: str, full: tuple[int, ...]) -> tuple[Grid, ...]:
    """Grids of all resolutions of a source; none where its full one is no longer that of the labels."""
    places = [level.axes.find(axis) for axis in axes]

    def along(values: Sequence[Any], otherwise: Sequence[Any]) -> tuple[Any, ...]:
        return tuple(values[at] if at >= 0 else other for at, other in zip(places, otherwise, strict=True))

    ones, zeros = (1.0,) * len(axes), (0.0,) * len(axes)
    grids: list[Grid] = []
    for resolution in (level, *level.lower[: _MOST_LEVELS - 1]):
        declared = declared_shape(source / resolution.path)
        if declared is None or len(declared) != len(level.axes):
            continue
        shape, scale = along(declared, full), along(resolution.scale, ones)
        if not grids and (shape != full or not _is_finite(resolution)):
            return ()
        if not (_is_finite(resolution) and all(0 < short <= long for short, long in zip(shape, full, strict=True))):
            continue
        if grids and scale == grids[0].scale:  # as NGFF told of none before 0.4
            scale = _scaled(grids[0], shape)
        grids.append(Grid(shape, scale, along(resolution.translation, zeros)))
    return tuple(grids)


def _is_finite(resolution: Resolution) -> bool:
    return all(map(math.isfinite, (*resolution.scale, *resolution.translation)))


def _told(axes: str, receipt: Mapping[str, Any]) -> tuple[tuple[float, ...], tuple[str, ...]]:
    """Distance of two pixels and its unit along each axis, as far as a receipt tells them."""
    seen = receipt["input"]
    size_yx = receipt["output"].get("pixel_size_um") or seen.get("pixel_size_um") or (None, None)
    known = {"t": seen.get("interval_s"), "z": seen.get("spacing_um"), "y": size_yx[0], "x": size_yx[1]}
    units = {"t": "second", "z": "micrometer", "y": "micrometer", "x": "micrometer"}
    return (
        tuple(float(known.get(axis) or 1.0) for axis in axes),
        tuple(units[axis] if known.get(axis) else "" for axis in axes),
    )


def _halved(full: tuple[int, ...], scale: tuple[float, ...]) -> tuple[Grid, ...]:
    grids = [Grid(full, scale, (0.0,) * len(full))]
    while max(grids[-1].shape[-2:]) > _LARGEST_LAST_PX:
        *stack, height, width = grids[-1].shape
        shape = (*stack, -(-height // 2), -(-width // 2))
        wider = _scaled(grids[0], shape)
        # of a pixel's middle, where both begin at the same edge
        grids.append(Grid(shape, wider, tuple((low - high) / 2 for low, high in zip(wider, scale, strict=True))))
    return tuple(grids)


def _scaled(full: Grid, shape: Sequence[int]) -> tuple[float, ...]:
    """Distance of two pixels of a grid that covers as much as the full one."""
    return tuple(size * long / short for size, long, short in zip(full.scale, full.shape, shape, strict=True))


def nearest(full: int, length: int) -> NDArray[np.intp]:
    """Which of ``full`` pixels lies in the middle of each of ``length`` pixels that cover as much."""
    return ((2 * np.arange(length) + 1) * full // (2 * length)).astype(np.intp)


def source_in(target: Path, source: Path) -> dict[str, Any]:
    """``source`` of a label image: where its image lies, from there; empty where that is none in OME-Zarr."""
    if not is_zarr(source):
        return {}
    relative = os.path.relpath(os.path.abspath(source), os.path.abspath(target))  # noqa: PTH100 - links are names, too
    return {"source": {"image": Path(relative).as_posix()}}
