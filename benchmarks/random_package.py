"""A net with random weights as a package: what it answers does not matter to what is measured."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from model.agreement import Agreement
from model.labels import LabelRule
from model.normalization import ScaleRange
from model.package import Package
from model.package import write_package as write_files
from model.spec import PackageFile, Person, Variant
from model.unet import UNet
from service.bench import blobs
from training.datasets import AnnotatedImage
from training.export import Card, export_package
from training.quantize import quantise
from training.variants import INT8_FILE, calibration_tiles, package_files


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
    image_yxc = blobs(320)[..., np.newaxis]
    package, _ = export_package(
        net,
        card,
        channels=("grey",),
        classes=("background", "object"),
        normalization=(ScaleRange(),),
        label_rule=rule,
        image_yxc=image_yxc,
        out=folder / name,
    )
    return package


def with_int8(package: Package, net: UNet) -> Package:
    """Add the net in integers, whatever it answers: only its speed is of interest."""
    labels_yx = np.zeros((320, 320), dtype=np.int32)
    tiles = calibration_tiles(package, [AnnotatedImage("blobs", blobs(320)[..., np.newaxis], labels_yx)])
    made = quantise(net, tiles)
    variant = Variant(
        precision="int8",
        weights=PackageFile(source=INT8_FILE),
        measured=made.agreement,
        images=1,
        limit=Agreement(1.0, 1.0),
    )
    files = {**package_files(package.path), INT8_FILE: made.weights}
    return write_files(package.path, package.spec.model_copy(update={"variants": (variant,)}), files)
