"""How fast this machine trains: the time of a step, measured, and whether bfloat16 pays."""

from __future__ import annotations

import time

import numpy as np
import torch

from training.data.datasets import AnnotatedImage
from training.data.tiles import TileDataset, prepare
from training.learning.trainer import training_step
from training.recipe import Recipe
from training.runs.state import fresh_state

_STEPS = 3


def bf16_support(device: str) -> tuple[bool, str]:
    """Say whether a device computes in bfloat16, and how that is known."""
    if device == "cuda":
        name = torch.cuda.get_device_name()
        usable = torch.cuda.is_bf16_supported(including_emulation=False)
        return usable, f"{name} {'computes' if usable else 'does not compute'} in bfloat16"
    capabilities = torch.cpu.get_capabilities()
    found = [name for name in ("avx512_bf16", "amx_bf16", "bf16") if capabilities.get(name)]
    if found:
        return True, f"this CPU has {', '.join(found)}, and the faster one was measured"
    return False, "this CPU has no instructions for bfloat16"


def seconds_per_step(recipe: Recipe, device: str, workers: int = 1) -> float:
    """Measure how long a training step of a recipe takes, its tiles included.

    Real steps on a random picture: the best of three after the first, which prepares the kernels.

    Parameters
    ----------
    recipe
        Net, tile, batch and precision count; nothing is written.
    device
        ``cpu`` or ``cuda``.
    workers
        Processes that will make tiles beside the steps.

    Returns
    -------
    float
        Seconds.

    """
    rng = np.random.default_rng(0)
    side = recipe.tile_output_px
    image_yxc = rng.integers(0, 256, (side, side, recipe.net.in_channels), dtype=np.uint8)
    labels_yx = (np.indices((side, side)).sum(axis=0) // 8 % 2).astype(np.int32)
    prepared = prepare([AnnotatedImage("random", image_yxc, labels_yx)], recipe)
    dataset = TileDataset(prepared, recipe, np.ones(len(recipe.targets.classes), dtype=np.float32))
    began = time.perf_counter()
    tiles = [dataset[number] for number in range(recipe.schedule.batch)]
    tile_s = time.perf_counter() - began
    batch = (
        torch.stack([tile[0] for tile in tiles]),
        torch.stack([tile[1] for tile in tiles]),
        torch.stack([tile[2] for tile in tiles]),
    )
    generator = torch.get_rng_state()
    state = fresh_state(recipe, device)
    times = []
    for _ in range(_STEPS + 1):
        began = time.perf_counter()
        training_step(state, batch, recipe, rate=1e-6)
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    torch.set_rng_state(generator)
    step_s = min(times[1:])
    return max(step_s, tile_s / workers) if workers else step_s + tile_s
