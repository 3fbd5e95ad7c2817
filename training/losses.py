"""Pixel-wise softmax with weighted cross-entropy (Ronneberger et al. 2015, section 3, equation 1)."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from training.datasets import IGNORE


def weighted_cross_entropy(logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Equation 1 over the pixels that are annotated, divided by their number.

    The logarithm of the softmax is taken at once (log-sum-exp, in float32), so that no tiny probability is ever
    multiplied or logged.

    Parameters
    ----------
    logits
        (b, classes, y, x), any float dtype.
    targets
        (b, y, x) int64 class indexes; :data:`training.datasets.IGNORE` pixels count for nothing.
    weights
        (b, y, x) float32.

    Returns
    -------
    Tensor
        Scalar, float32; 0 where no pixel is annotated.

    """
    losses = functional.cross_entropy(logits.float(), targets, ignore_index=IGNORE, reduction="none")
    known = targets != IGNORE
    return (losses * weights * known).sum() / known.sum().clamp(min=1)
