"""NumPy's .npy: the array as it is.

mask: uint8 class indexes, labels: uint16 or uint32, both (..stack.., y, x).
probabilities: float32 (..stack.., c, y, x). A single plane has no stack axis.
"""

from __future__ import annotations

from typing import IO

import numpy as np

from service.formats.encoder import Encoder
from service.formats.result import OutputKind, SegmentationResult


class NpyEncoder(Encoder):
    """Writes .npy."""

    name = "npy"
    media_type = "application/x-npy"
    extension = ".npy"

    @staticmethod
    def least_bytes(output: OutputKind, pixels: int, classes: int) -> int:
        """Fewest bytes that a result of so many pixels takes in this format; nothing in it is compressed."""
        match output:
            case "mask":
                return pixels
            case "labels":
                return 2 * pixels
            case "probabilities":
                return 4 * classes * pixels

    def write(self, result: SegmentationResult, target: IO[bytes]) -> None:
        """Write any result; the receipt has no room in this format."""
        channels = result.planes[0].shape[:-2]
        header = {
            "descr": np.lib.format.dtype_to_descr(result.dtype),
            "fortran_order": False,
            "shape": (*result.stack_shape, *channels, *result.size_yx),
        }
        np.lib.format.write_array_header_1_0(target, header)
        for plane in range(len(result.planes)):
            for channel in range(channels[0]) if channels else [None]:
                for band in result.bands(plane, channel):
                    target.write(band.tobytes())
