"""From a trained net to a model package: ONNX with fp16 weights on disk, golden pair, card, validation."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from torch import nn

from model.agreement import Agreement, agreement
from model.label_rule import LabelRule
from model.normalization import Step, fit
from model.package import Package, read_package, tensor_bytes
from model.session import SessionOptions, open_session, self_test
from model.spec import Citation, ModelSpec, PackageFile, Person
from model.stitching import predict_tiled
from model.tiling import Geometry, plan_whole, valid_unet_geometry
from model.unet import UNet
from training.errors import ExportError
from training.packaging.drafts import drafted, require_place
from training.packaging.golden import Answer
from training.packaging.onnx_graph import OPSET, to_onnx
from training.packaging.specification import require_description, validate

_README, _LICENSE = "README.md", "LICENSE"
_GOLDEN_OUTPUT_YX = (84, 132)  # not square, so that exchanged axes are found
_U_NET_PAPER = Citation(
    text="Ronneberger, Fischer, Brox: U-Net: Convolutional Networks for Biomedical Image Segmentation. MICCAI 2015",
    doi="10.1007/978-3-319-24574-4_28",
)


@dataclass(frozen=True, slots=True)
class Card:
    """What the package says of itself beside the net.

    Parameters
    ----------
    name, version, title, description, tags
        Name and version are what requests ask for.
    license, license_text
        SPDX identifier and full text.
    readme
        The package's documentation, Markdown.
    facts
        Data, its licence, split, figures, command: JSON-able.
    pixel_size_um
        Of the training images, (y, x), where known.
    object_diameter_px
        As :attr:`model.spec.ModelSpec.object_diameter_px`.

    """

    name: str
    version: str
    title: str
    description: str
    license: str
    license_text: str
    readme: str
    authors: tuple[Person, ...]
    tags: tuple[str, ...] = ("unet", "segmentation", "semantic-segmentation", "instance-segmentation", "2d")
    cite: tuple[Citation, ...] = (_U_NET_PAPER,)
    facts: dict[str, Any] = field(default_factory=dict)
    pixel_size_um: tuple[float, float] | None = None
    object_diameter_px: tuple[float, float, float] | None = None


def export_package(
    net: UNet,
    card: Card,
    *,
    channels: Sequence[str],
    classes: Sequence[str],
    normalization: Sequence[Step],
    label_rule: LabelRule,
    image_yxc: NDArray[Any],
    out: Path,
) -> tuple[Package, Agreement]:
    """Export a net, write its package, and check it with ONNX Runtime and ``bioimageio.spec``.

    Parameters
    ----------
    net
        Trained; its weights are rounded to fp16 for the disk, computed with in fp32.
    card
        What the package says of itself.
    channels, classes
        Names of the input's and the output's channels.
    normalization, label_rule
        What training used, and what serving will use.
    image_yxc
        A real image (y, x, c): the golden pair is cut from it, torch and ONNX Runtime are compared on it.
    out
        Folder, or a name ending in ``.zip``.

    Raises
    ------
    ExportError
        As :func:`describe`, where weights are not finite in fp16, where ONNX Runtime and torch differ by 1e-4 or more,
        where the package is not valid, or where something that is no package lies at ``out``. Whatever lies there
        stays as it was.

    """
    require_place(out)
    spec = describe(net, card, channels=channels, classes=classes, normalization=normalization, label_rule=label_rule)
    probabilities = _rounded_with_softmax(net)
    golden_yxc = _golden_crop(image_yxc, spec.geometry)
    golden_input = np.moveaxis(golden_yxc, -1, 0)[np.newaxis].astype(np.float32)
    files = {
        spec.weights.source: to_onnx(probabilities, spec.geometry.y, len(channels)),
        spec.test_input.source: tensor_bytes(golden_input),
        spec.test_output.source: tensor_bytes(_run_torch(probabilities, _normalised(golden_yxc, normalization))),
        _README: card.readme.encode(),
        _LICENSE: card.license_text.encode(),
    }
    with drafted(out, spec, files) as draft:
        found = _compare(draft, probabilities, image_yxc)
        if not found.largest_difference < 1e-4:  # NaN is not, either
            raise ExportError(f"torch and ONNX Runtime differ by {found.largest_difference:.2g}; 1e-4 is the limit")
        validate(draft.path)
    return read_package(out), found


def describe(
    net: UNet,
    card: Card,
    *,
    channels: Sequence[str],
    classes: Sequence[str],
    normalization: Sequence[Step],
    label_rule: LabelRule,
) -> ModelSpec:
    """Return a net's description, hashes left out; takes no time, so that what cannot be exported is found before.

    Parameters
    ----------
    net, card, channels, classes, normalization, label_rule
        As for :func:`export_package`.

    Raises
    ------
    ExportError
        Where there is not one name for each channel, or a value is none that a package can hold.

    """
    names = list(channels)
    if len(names) != net.in_channels or len(set(names)) < len(names):
        raise ExportError(
            f"{len(set(names))} different names of channels ({', '.join(names)}), but the net takes {net.in_channels} "
            "channels; give one for each (--channels)"
        )
    try:
        spec = ModelSpec(
            name=card.name,
            version=card.version,
            title=card.title,
            description=card.description,
            license=card.license,
            authors=card.authors,
            cite=card.cite,
            tags=card.tags,
            channels=tuple(channels),
            classes=tuple(classes),
            normalization=tuple(normalization),
            geometry=valid_unet_geometry(net.depth, net.downscale),
            label_rule=label_rule,
            pixel_size_um=card.pixel_size_um,
            object_diameter_px=card.object_diameter_px,
            # the skip connection, both convolutions' maps and their concatenation at full resolution, float32
            activation_bytes_per_pixel=max(1, 6 * 4 * net.base_width // net.downscale**2),
            weights=PackageFile(source="weights.onnx"),
            opset=OPSET,
            test_input=PackageFile(source="test_input.npy"),
            test_output=PackageFile(source="test_output.npy"),
            documentation=PackageFile(source=_README),
            attachments=(PackageFile(source=_LICENSE),),
            facts=card.facts,
        )
    except ValidationError as error:
        first = error.errors()[0]
        where, value = ".".join(map(str, first["loc"])), first["input"]
        found = f"{where} {value!r}" if isinstance(value, str) else where or "such a description"
        raise ExportError(
            f"a package cannot hold {found}: {first['msg']}; correct --version, or name, [card] and [labels] in a copy "
            "of the recipe and name that (--recipe)"
        ) from error
    require_description(spec)
    return spec


def golden_answer(net: UNet, normalization: Sequence[Step]) -> Answer:
    """Return what the net says where a picture's golden pair would be cut from it, (c, y, x)."""
    probabilities = _rounded_with_softmax(net)
    geometry = valid_unet_geometry(net.depth, net.downscale)

    def answer(picture_yxc: NDArray[np.uint8]) -> NDArray[np.float32]:
        golden_yxc = _golden_crop(picture_yxc, geometry)
        output: NDArray[np.float32] = _run_torch(probabilities, _normalised(golden_yxc, normalization))[0]
        return output

    return answer


def _rounded_with_softmax(net: UNet) -> nn.Module:
    """The net as the package holds it: weights rounded to fp16, probabilities for logits."""
    rounded = copy.deepcopy(net).float().cpu()
    with torch.no_grad():
        for parameter in rounded.parameters():
            parameter.copy_(parameter.half().float())
    weights = nn.utils.parameters_to_vector(rounded.parameters())
    broken = int((~torch.isfinite(weights)).sum())
    if broken:
        raise ExportError(
            f"{broken} of {len(weights)} weights are not finite in half precision, in which a package holds them and "
            f"which ends at {torch.finfo(torch.half).max:g}; train with a lower schedule.learning_rate"
        )
    return nn.Sequential(rounded, nn.Softmax(dim=1)).eval()


def _normalised(image_yxc: NDArray[Any], normalization: Sequence[Step]) -> NDArray[np.float32]:
    """A batch of one, (1, c, y, x)."""
    return fit(normalization, image_yxc).apply(image_yxc)[np.newaxis]


def _golden_crop(image_yxc: NDArray[Any], geometry: Geometry) -> NDArray[Any]:
    """Centre of an image at the golden size, mirrored where it is smaller."""
    sizes = (axis.input_for(output) for axis, output in zip((geometry.y, geometry.x), _GOLDEN_OUTPUT_YX, strict=True))
    for axis, size in enumerate(sizes):
        missing = max(0, size - image_yxc.shape[axis])
        pad = [(0, 0)] * image_yxc.ndim
        pad[axis] = (missing // 2, missing - missing // 2)
        image_yxc = np.pad(image_yxc, pad, mode="reflect")
        start = (image_yxc.shape[axis] - size) // 2
        image_yxc = image_yxc.take(range(start, start + size), axis=axis)
    return image_yxc


def _run_torch(probabilities: nn.Module, tiles_bcyx: NDArray[np.float32]) -> NDArray[np.float32]:
    with torch.inference_mode():
        return probabilities(torch.from_numpy(tiles_bcyx)).numpy().astype(np.float32)  # type: ignore[no-any-return]


def _compare(package: Package, probabilities: nn.Module, image_yxc: NDArray[Any]) -> Agreement:
    """Torch against ONNX Runtime on one whole image, as one tile, after the golden pair."""
    session = open_session(package, SessionOptions(backend="cpu"))
    self_test(session, package)
    normalization = fit(package.spec.normalization, image_yxc)
    plan = plan_whole((image_yxc.shape[0], image_yxc.shape[1]), package.spec.geometry)
    ours = predict_tiled(image_yxc, normalization, plan, session.run)
    theirs = predict_tiled(image_yxc, normalization, plan, lambda tiles: _run_torch(probabilities, tiles))
    return agreement(ours[np.newaxis], theirs[np.newaxis])
