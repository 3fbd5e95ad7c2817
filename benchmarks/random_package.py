"""A net with random weights as a package: what it answers does not matter to what is measured."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from model.labels import LabelRule
from model.normalization import ScaleRange
from model.package import Package
from model.spec import Person
from model.unet import UNet
from service.bench import blobs
from training.export import Card, export_package


def write_package(net: UNet, folder: Path, name: str, rule: LabelRule) -> Package:
    """Export a net of one channel and two classes.

    Parameters
    ----------
    net
        On the CPU.
    folder
        Of packages.
    name
        Of the package and its folder below.
    rule
        How objects are told apart.

    """
    card = Card(
        name=name,
        version="1.0.0",
        title=f"Random weights {name}",
        description="For measuring.",
        license="MIT",
        license_text="MIT",
        readme=f"# {name}\n",
        authors=(Person(name="The benchmarks"),),
    )
    package, _ = export_package(
        net,
        card,
        channels=("grey",),
        classes=("background", "object"),
        normalization=(ScaleRange(),),
        label_rule=rule,
        image_yxc=blobs(320)[..., np.newaxis],
        out=folder / name,
    )
    return package
