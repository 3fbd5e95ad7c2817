"""What the engine hands to an encoder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from model.pixels import Pixels, row_bands
from service.formats.placement import UNPLACED, Placement

OutputKind: TypeAlias = Literal["mask", "labels", "probabilities"]
"""Class of each pixel, numbered objects, or probability of each class."""


@dataclass(frozen=True, slots=True)
class SegmentationResult:
    """One segmented image or stack, plane by plane."""

    kind: OutputKind
    planes: Sequence[Pixels]
    """mask: uint8 (y, x) class indexes; labels: uint16 or uint32 (y, x), numbered from 1 in every plane,
    0 = background; probabilities: float32 (c, y, x), 0 to 1. Each may lie in memory or in a file. Encoders read them by
    :meth:`part`, or give each object the :meth:`number` that it has in the stack."""
    classes: tuple[str, ...]
    """Names by class index, background first."""
    stack_axes: str
    """One letter per stack axis, slowest first; empty for a single plane."""
    stack_shape: tuple[int, ...]
    """Length of each stack axis; their product is n."""
    pixel_size_um: tuple[float, float] | None
    """Height and width of a pixel in micrometres."""
    scores: tuple[NDArray[np.float32], ...] | None
    """For labels: per plane, the mean foreground probability of label i + 1."""
    receipt: Mapping[str, Any]
    """What was done, fit for JSON; it travels inside the formats that have room for it."""
    spacing_um: float | None = None
    """Distance of the planes of a z stack in micrometres."""
    interval_s: float | None = None
    """Time between frames in seconds."""
    numbers: tuple[NDArray[np.unsignedinteger[Any]], ...] | None = None
    """For labels that are linked through a stack: per plane, the number of label i in the stack, 0 for 0; all of one
    type. None where labels are numbered in each plane alone."""
    placement: Placement = UNPLACED
    """Where coordinates count from, in formats that have any."""
    file_name: str | None = None
    """Name of the image's file, without folders, for formats that name it; None where nobody has said it."""
    dtype: np.dtype[Any] = field(init=False)
    """Type that holds the values of every plane: a stack may have some of 16 and some of 32 bits."""

    def __post_init__(self) -> None:
        values = self.planes if self.numbers is None else self.numbers
        # once: parts are asked for more often than there are planes
        object.__setattr__(self, "dtype", np.result_type(*{each.dtype for each in values}))

    @property
    def size_yx(self) -> tuple[int, int]:
        """Height and width in pixels."""
        height, width = self.planes[0].shape[-2:]
        return height, width

    def bands(self, plane: int, channel: int | None = None, rows: int | None = None) -> Iterator[NDArray[Any]]:
        """Bands (y, x) of a plane from top to bottom, in memory, of :attr:`dtype`.

        Parameters
        ----------
        plane
            Which.
        channel
            Of probabilities; None where planes have two axes.
        rows
            Of a band; None for about a million pixels.

        """
        height, width = self.size_yx
        for band in row_bands(height, width) if rows is None else row_bands(height, 1, rows):
            yield self.part(plane, channel, band)

    def part(self, plane: int, channel: int | None, rows: slice, columns: slice = slice(None)) -> NDArray[Any]:
        """Part (y, x) of a plane, in memory, of :attr:`dtype`; parameters as of :meth:`bands`."""
        window = (rows, columns) if channel is None else (channel, rows, columns)
        part: NDArray[Any] = self.planes[plane][window]
        return part.astype(self.dtype, copy=False) if self.numbers is None else self.numbers[plane][part]

    def number(self, plane: int, label: int) -> int:
        """Number, in the answer, of the object that ``plane`` has as ``label``."""
        return label if self.numbers is None else int(self.numbers[plane][label])

    def score(self, plane: int, label: int) -> float | None:
        """Score of the object that ``plane`` has as ``label`` (from 1), or None where there is none."""
        if self.scores is None or not 0 < label <= len(self.scores[plane]):
            return None
        return round(float(self.scores[plane][label - 1]), 4)

    def plane_index(self, plane: int) -> tuple[int, ...]:
        """Position of ``plane`` along the stack axes."""
        return tuple(int(i) for i in np.unravel_index(plane, self.stack_shape)) if self.stack_shape else ()
