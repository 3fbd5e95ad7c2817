"""How far a net in a lower precision stands from itself in fp32."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far probabilities of a lower precision stand from those of fp32."""

    other_class: float
    """Fraction of pixels whose likeliest class is another."""
    largest_difference: float
    """Largest difference of a probability."""

    def within(self, limit: Agreement) -> bool:
        """Whether both keep within a limit; NaN does not."""
        return self.other_class <= limit.other_class and self.largest_difference <= limit.largest_difference

    def __str__(self) -> str:
        return (
            f"another class in {self.other_class:.3%} of pixels, probabilities differ by up to "
            f"{self.largest_difference:.2g}"
        )


LIMIT = Agreement(other_class=0.001, largest_difference=0.05)
"""What rounding of the same net (fp16, bf16) may differ by."""
MOST = Agreement(other_class=0.01, largest_difference=0.5)
"""The widest limit that a package may name for a graph of its own."""


def agreement(probabilities: NDArray[np.float32], reference: NDArray[np.float32]) -> Agreement:
    """Compare probabilities (b, c, y, x); the class of a net of one channel is whether it exceeds one half.

    Raises
    ------
    ValueError
        Where their shapes differ.

    """
    if probabilities.shape != reference.shape:
        raise ValueError(f"shape {probabilities.shape} cannot be compared with {reference.shape}")
    if probabilities.shape[1] == 1:
        differs = (probabilities > 0.5) != (reference > 0.5)
    else:
        differs = probabilities.argmax(axis=1) != reference.argmax(axis=1)
    return Agreement(float(differs.mean()), float(np.abs(probabilities - reference).max()))
