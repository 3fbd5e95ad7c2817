"""A net as a package, for tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from numpy.typing import NDArray

from model.agreement import Agreement
from model.label_rule import LabelRule
from model.normalization import ScaleRange, Step
from model.package import Package
from model.spec import Person
from model.unet import UNet
from training.packaging.export import Card, export_package

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
    *,
    channels: Sequence[str] = ("c0",),
    label_rule: LabelRule | None = None,
    normalization: Sequence[Step] = (ScaleRange(min_percentile=1, max_percentile=99.8),),
    pixel_size_um: tuple[float, float] | None = (0.65, 0.65),
    **card_values: Any,
) -> tuple[Package, Agreement]:
    """Export a net of two classes; ``card_values`` take the place of what the card says."""
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
        object_diameter_px=(7.5, 20.5, 49.5),
    )
    card = replace(card, **card_values)
    return export_package(
        net,
        card,
        channels=channels,
        classes=["background", "object"],
        normalization=normalization,
        label_rule=label_rule or LabelRule(),
        image_yxc=image_yxc,
        out=folder,
    )
