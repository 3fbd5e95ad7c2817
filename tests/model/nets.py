"""Nets and images for tests of tiles."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from model.unet import UNet


def random_image(size_yx: tuple[int, int], seed: int, dtype: type = np.uint16) -> NDArray[Any]:
    """Noise over the whole range of an integer type (y, x, 1)."""
    top = np.iinfo(dtype).max
    return np.random.default_rng(seed).integers(0, top, (*size_yx, 1), dtype=dtype, endpoint=True)


def run_with(net: UNet) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    """Probabilities of a net in torch."""

    def run(tiles: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.inference_mode():
            probabilities: NDArray[np.float32] = torch.softmax(net(torch.from_numpy(tiles)), dim=1).numpy()
        return probabilities

    return run
