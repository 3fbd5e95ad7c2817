"""NumPy's .npy: the array as it is.

mask: uint8 class indexes, labels: uint16 or uint32, both (..stack.., y, x).
probabilities: float32 (..stack.., c, y, x). A single plane has no stack axis.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np

from service.formats.result import SegmentationResult


@dataclass(frozen=True, slots=True)
class NpyEncoder:
    """Writes .npy."""

    media_type: str = "application/x-npy"
    extension: str = ".npy"

    def encode(self, result: SegmentationResult) -> bytes:
        """Write any result; the receipt has no room in this format."""
        file = io.BytesIO()
        planes = result.planes.reshape(*result.stack_shape, *result.planes.shape[1:])
        np.lib.format.write_array(file, planes, allow_pickle=False)
        return file.getvalue()
