"""The steps that one plane goes through around the net: channels, memory, reduction, labels, scores."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.errors import ImageMismatch
from model.labels import class_mask, foreground_probability, instance_labels
from model.spec import ModelSpec
from model.stitching import Reduce
from service.engine.errors import BadParameter
from service.engine.request import SegmentRequest
from service.formats import Encoder, ImageHeader, SegmentationResult

_BYTES_PER_EDGE = 100  # measured: 1.2 GB for the 12 million edges of a 3000 x 3000 px image of noise as GeoJSON
_BAND_PX = 1 << 20  # numpy holds the interpreter lock in some calls: bands keep each hold short


def check_channels(header: ImageHeader, spec: ModelSpec, request: SegmentRequest) -> None:
    """Refuse, from the header alone, an image whose channels cannot be what the package takes.

    Raises
    ------
    BadParameter
        Where ``channel`` does not exist, or the package takes several.
    ImageMismatch
        Where the numbers differ and nothing says which channel to take.

    """
    wanted, found = len(spec.channels), header.channels
    if request.channel is not None:
        if wanted != 1:
            raise BadParameter(
                f"model {spec.name} takes {wanted} channels ({', '.join(spec.channels)}); leave channel out"
            )
        if request.channel >= found:
            raise BadParameter(f"channel {request.channel} is asked for, the image has {found}; use 0 to {found - 1}")
    elif found != wanted and (wanted, found) != (1, 3):
        raise ImageMismatch(_mismatch(spec, found))


def check_output(encoder: Encoder, header: ImageHeader, spec: ModelSpec, request: SegmentRequest) -> None:
    """Refuse an output that the format cannot hold before any work is done, by writing a pixel of one or two planes.

    Raises
    ------
    UnsupportedOutput

    """
    planes = min(header.planes, 2)
    shape = (planes, len(spec.classes), 1, 1) if request.output == "probabilities" else (planes, 1, 1)
    dtype = {"mask": np.uint8, "labels": np.uint16, "probabilities": np.float32}[request.output]
    encoder.encode(
        SegmentationResult(
            kind=request.output,
            planes=np.zeros(shape, dtype=dtype),
            classes=result_classes(spec, request),
            stack_axes="I" if planes > 1 else "",
            stack_shape=(planes,) if planes > 1 else (),
            pixel_size_um=None,
            scores=None,
            receipt={},
        )
    )


def select_channels(image_yxc: NDArray[Any], spec: ModelSpec, channel: int | None) -> tuple[NDArray[Any], str | None]:
    """Take the channels that the package wants out of an image that :func:`check_channels` let pass.

    Returns
    -------
    tuple
        The image (y, x, c) and a note where something was done that the caller should know.

    Raises
    ------
    ImageMismatch
        Where a package of one channel meets three that differ.

    """
    if channel is not None:
        return image_yxc[..., channel : channel + 1], None
    if image_yxc.shape[-1] == len(spec.channels):
        return image_yxc, None
    rows = max(1, _BAND_PX // image_yxc.shape[1])
    for start in range(0, len(image_yxc), rows):
        band = image_yxc[start : start + rows]
        if not (np.array_equal(band[..., 0], band[..., 1]) and np.array_equal(band[..., 0], band[..., 2])):
            raise ImageMismatch(_mismatch(spec, image_yxc.shape[-1]))
    return image_yxc[..., :1], "three equal channels read as one grey channel"


def _mismatch(spec: ModelSpec, found: int) -> str:
    wanted = len(spec.channels)
    remedy = f"choose one with channel=0 to {found - 1}, or " if wanted == 1 and found > 1 else ""
    return (
        f"the image has {found} channels, model {spec.name} takes {wanted} ({', '.join(spec.channels)}); "
        f"{remedy}send an image with {wanted}"
    )


def memory_needed(header: ImageHeader, spec: ModelSpec, request: SegmentRequest) -> int:
    """Bytes that a request takes at its peak: one decoded plane, its results, and what all planes leave behind."""
    plane = math.prod(header.size_yx)
    classes = len(spec.classes)
    decoded = plane * header.channels * header.dtype.itemsize
    match request.output:
        case "mask":
            working, kept = 0, 1
        case "labels":
            # probabilities, foreground, labels as int32 and their renumbered copy
            working, kept = 4 * classes + 4 + 4 + 4, 4
        case "probabilities":
            working, kept = 0, 4 * classes
    # the encoder holds the result a second time at worst
    return decoded + plane * working + 2 * plane * header.planes * kept


def outline_memory(planes_nyx: NDArray[Any]) -> int:
    """Bytes that an encoder of outlines or runs takes for its edges: noise has one at every pixel, cells have few."""
    edges = 0
    for plane_yx in planes_nyx:
        rows = max(1, _BAND_PX // max(1, plane_yx.shape[1]))
        for start in range(0, plane_yx.shape[0], rows):
            band = plane_yx[start : start + rows + 1]
            edges += int(np.count_nonzero(band[1:] != band[:-1]))
            edges += int(np.count_nonzero(band[:rows, 1:] != band[:rows, :-1]))
    return edges * _BYTES_PER_EDGE


def result_classes(spec: ModelSpec, request: SegmentRequest) -> tuple[str, ...]:
    """Names of what the result's values or channels stand for."""
    return spec.classes if request.output == "probabilities" else spec.mask_classes


def reduction(spec: ModelSpec, request: SegmentRequest) -> Reduce:
    """What the stitcher keeps of each tile's probabilities."""
    if request.output != "mask":
        return lambda probabilities_cyx: probabilities_cyx
    return lambda probabilities_cyx: class_mask(probabilities_cyx, spec.label_rule, request.threshold)


def empty_plane(size_yx: tuple[int, int], spec: ModelSpec, request: SegmentRequest) -> NDArray[Any]:
    """Array for the stitcher: (y, x) uint8 for a mask, (c, y, x) float32 otherwise."""
    if request.output == "mask":
        return np.empty(size_yx, dtype=np.uint8)
    return np.empty((len(spec.classes), *size_yx), dtype=np.float32)


def label_plane(
    probabilities_cyx: NDArray[np.float32], spec: ModelSpec, request: SegmentRequest
) -> tuple[NDArray[np.uint16] | NDArray[np.uint32], NDArray[np.float32]]:
    """Instance labels (y, x) of a plane and the mean foreground probability of each."""
    labels = instance_labels(probabilities_cyx, spec.label_rule, request.threshold, request.min_area)
    return labels, _mean_of_each(labels, foreground_probability(probabilities_cyx, spec.label_rule))


def _mean_of_each(labels: NDArray[Any], values: NDArray[np.float32]) -> NDArray[np.float32]:
    rows = max(1, _BAND_PX // max(1, labels.shape[1]))
    bands = [slice(start, start + rows) for start in range(0, labels.shape[0], rows)]
    count = max((int(labels[band].max()) for band in bands), default=0)
    areas, sums = np.zeros(count + 1), np.zeros(count + 1)
    for band in bands:
        flat = labels[band].ravel()
        areas += np.bincount(flat, minlength=count + 1)
        sums += np.bincount(flat, weights=values[band].ravel(), minlength=count + 1)
    return (sums[1:] / np.maximum(areas[1:], 1)).astype(np.float32)
