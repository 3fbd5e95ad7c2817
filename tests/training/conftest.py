"""A small recipe and a small synthetic dataset, so that real runs take seconds."""

from __future__ import annotations

from pathlib import Path

import pytest

from training.recipe import Recipe, recipe_from
from training.scene import NucleiScene
from training.synthetic import write_dataset


@pytest.fixture(scope="session")
def nuclei_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight synthetic pictures with labels; one of them validates under :func:`tiny_recipe`."""
    folder = tmp_path_factory.mktemp("nuclei")
    write_dataset(folder, 8, NucleiScene(size_yx=(96, 120), bit_depth=8, radius_px=(6.0, 10.0)), seed=1)
    return folder


@pytest.fixture
def tiny_recipe() -> Recipe:
    """Net of base width 4 and depth 2, six steps."""
    return recipe_from(
        {
            "name": "tiny",
            "tile_output_px": 60,
            "data": {"validation_fraction": 0.3},
            "net": {"base_width": 4, "depth": 2, "dropout": 0.3},
            "augmentation": {"scale": [0.8, 1.2], "gamma": [0.8, 1.2], "noise": 0.05},
            "schedule": {
                "optimizer": "adamw",
                "learning_rate": 0.005,
                "steps": 6,
                "ema": 0.9,
                "clip_norm": 1.0,
                "validate_every": 3,
                "checkpoint_every": 2,
            },
        },
        "tiny",
    )
