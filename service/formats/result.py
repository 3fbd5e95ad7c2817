"""What the engine hands to an encoder, and what an encoder is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from service.formats.errors import UnsupportedOutput


@dataclass(frozen=True, slots=True)
class SegmentationResult:
    """One segmented image or stack, plane by plane."""

    kind: Literal["mask", "labels", "probabilities"]
    planes: NDArray[Any]
    """mask: uint8 (n, y, x) class indexes; labels: uint16 or uint32 (n, y, x), numbered from 1 in every plane,
    0 = background; probabilities: float32 (n, c, y, x), 0 to 1."""
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

    @property
    def size_yx(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.planes.shape[-2], self.planes.shape[-1]

    def score(self, plane: int, label: int) -> float | None:
        """Score of ``label`` (from 1) in ``plane``, or None where there is none."""
        if self.scores is None or not 0 < label <= len(self.scores[plane]):
            return None
        return round(float(self.scores[plane][label - 1]), 4)

    def plane_index(self, plane: int) -> tuple[int, ...]:
        """Position of ``plane`` along the stack axes."""
        return tuple(int(i) for i in np.unravel_index(plane, self.stack_shape)) if self.stack_shape else ()


class Encoder(Protocol):
    """Writes results in one format."""

    @property
    def media_type(self) -> str:
        """For the Content-Type header."""
        ...

    @property
    def extension(self) -> str:
        """For a file name, with its dot."""
        ...

    def encode(self, result: SegmentationResult) -> bytes:
        """Write ``result`` whole.

        Raises
        ------
        UnsupportedOutput
            The format cannot hold this result.
        """
        ...


def refuse_probabilities(result: SegmentationResult, format_name: str) -> None:
    """Refuse probabilities in a format of objects.

    Raises
    ------
    UnsupportedOutput
        ``result`` holds probabilities.
    """
    if result.kind == "probabilities":
        msg = (
            f"{format_name} holds objects, not probabilities; ask for output=mask or labels, or for format=tiff or npy"
        )
        raise UnsupportedOutput(msg)
