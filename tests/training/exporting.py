"""A net as a package, for tests."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from numpy.typing import NDArray

from model.labels import LabelRule
from model.normalization import ScaleRange, Step
from model.package import Package
from model.spec import Person
from model.unet import UNet
from training.export import Agreement, Card, export_package

LIBRARY_WARNINGS = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning",
    "ignore::UserWarning",
    "ignore::ResourceWarning",
    "ignore::pytest.PytestUnraisableExceptionWarning",
)
"""For tests that export: what is warned of is in libraries, bioimageio's open files above all, and not ours."""


def export(
    net: UNet,
    folder: Path,
    image_yxc: NDArray[Any],
    channels: int = 1,
    *,
    normalization: Sequence[Step] = (ScaleRange(min_percentile=1, max_percentile=99.8),),
    pixel_size_um: tuple[float, float] | None = (0.65, 0.65),
) -> tuple[Package, Agreement]:
    """Export a net of two classes."""
    card = Card(
        name="exported",
        version="1.2.3",
        title="Exported net",
        description="A net with random weights.",
        license="MIT",
        license_text="MIT",
        readme="# Exported\n",
        authors=(Person(name="The tests"),),
        facts={"purpose": "tests"},
        pixel_size_um=pixel_size_um,
    )
    return export_package(
        net,
        card,
        channels=[f"c{index}" for index in range(channels)],
        classes=["background", "object"],
        normalization=normalization,
        label_rule=LabelRule(),
        image_yxc=image_yxc,
        out=folder,
    )
