"""Nets that nobody has trained as packages: with random weights, or answering by the grey value alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn

from model.agreement import MOST
from model.label_rule import LabelRule
from model.normalization import ScaleRange
from model.package import Package
from model.package import write_package as write_files
from model.spec import PackageFile, Person, Variant
from model.unet import UNet
from service.bench import blobs
from training.data.datasets import AnnotatedImage
from training.packaging.export import Card, export_package
from training.packaging.quantize import quantise
from training.packaging.variants import INT8_FILE, calibration_tiles


def passing_net(base_width: int, depth: int, gain: float, threshold: float = 0.5, downscale: int = 1) -> UNet:
    """Return a net that hands the image through its highest skip connection, beside random features that count nothing.

    Its two classes are background and what exceeds ``threshold``, with the logit ``gain * (value - threshold)``. The
    net computes all that one of its size does.
    """
    torch.manual_seed(0)
    net = UNet(base_width=base_width, depth=depth, dropout=0.0, downscale=downscale).eval()
    planes = downscale**2
    weight, bias = net.head.parameters()
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3):
                module.weight.mul_(0.1)
                module.weight[:planes] = 0
                for plane in range(planes):
                    module.weight[plane, plane, 1, 1] = 1
        weight.zero_()
        for plane in range(planes):
            if isinstance(net.head, nn.ConvTranspose2d):
                weight[plane, 1, plane // downscale, plane % downscale] = gain
            else:
                weight[1, plane] = gain
        bias.copy_(torch.tensor([0.0, -gain * threshold]))
    return net


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
        limit=MOST,
    )
    files = {**package.own_files(), INT8_FILE: made.weights}
    return write_files(package.path, package.spec.model_copy(update={"variants": (variant,)}), files)
