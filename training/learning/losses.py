"""Pixel-wise softmax with weighted cross-entropy (Ronneberger et al. 2015, section 3, equation 1), and soft Dice."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from training.data.datasets import IGNORE


def weighted_cross_entropy(logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Equation 1 over the pixels that are annotated, divided by their number.

    The logarithm of the softmax is taken at once (log-sum-exp, in float32), so that no tiny probability is ever
    multiplied or logged.

    Parameters
    ----------
    logits
        (b, classes, y, x), any float dtype.
    targets
        (b, y, x) int64 class indexes; :data:`training.data.datasets.IGNORE` pixels count for nothing.
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


def soft_dice_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """One minus the soft Dice coefficient of Milletari et al. 2016 (V-Net, section 3), for any number of classes.

    For each tile and each class that occurs in it, ``2 sum(p g) / (sum(p^2) + sum(g^2))`` over the annotated pixels,
    p the probability and g 1 where the target is that class; then the mean over the tile's classes, then over tiles. A
    class that does not occur has no coefficient: its probability is taken from those that do.

    Parameters
    ----------
    logits
        (b, classes, y, x), any float dtype; computed in float32.
    targets
        (b, y, x) int64 class indexes; :data:`training.data.datasets.IGNORE` pixels count for nothing.

    Returns
    -------
    Tensor
        Scalar, float32, 0 to 1; a tile without an annotated pixel adds 0 to the mean.

    """
    known = (targets != IGNORE)[:, None]
    truth = functional.one_hot(targets.clamp(min=0), logits.shape[1]).movedim(-1, 1) * known
    probability = torch.softmax(logits.float(), dim=1) * known
    occurring = truth.sum(dim=(2, 3)).float()  # (b, classes): pixels, which is sum(g^2) as well
    both = (probability * truth).sum(dim=(2, 3))
    missed = 1 - 2 * both / ((probability**2).sum(dim=(2, 3)) + occurring.clamp(min=1))
    present = occurring > 0
    return ((missed * present).sum(dim=1) / present.sum(dim=1).clamp(min=1)).mean()
