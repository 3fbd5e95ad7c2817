"""The steps that one plane goes through around the net: decoding, channels, reduction, labels."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.images import ImageHeader, ImageReader
from model.labels import Allocate, Objects, class_mask, evidence_mask, evidence_of
from model.normalization import FittedNormalization
from model.pixels import Pixels, row_bands
from model.session import InferenceSession
from model.spec import ModelSpec
from model.stitching import Reduce, Run
from service.engine.images.channels import mismatch
from service.engine.request import SegmentRequest
from service.formats import Encoder, OutputKind, SegmentationResult


@dataclass(frozen=True, slots=True)
class InferredPlane:
    """What the net gave for one plane, for each request, and what the receipt says of how the plane was read."""

    values: Sequence[Pixels]
    normalization: FittedNormalization
    note: str | None


@dataclass(frozen=True, slots=True)
class FinishedPlane:
    """Result of one plane, and what the receipt says of it."""

    values: Pixels
    normalization: FittedNormalization
    notes: tuple[str, ...]
    objects: Objects | None


def check_output(encoder: Encoder, header: ImageHeader, spec: ModelSpec, request: SegmentRequest) -> None:
    """Refuse an output that the format cannot hold before any work is done, by writing a pixel of one or two planes.

    Raises
    ------
    UnsupportedOutput

    """
    planes = min(header.planes, 2)
    shape = (planes, len(spec.classes), 1, 1) if request.output == "probabilities" else (planes, 1, 1)
    dtype = {"mask": np.uint8, "labels": np.uint16, "probabilities": np.float32}[request.output]
    encoder.write(
        SegmentationResult(
            kind=request.output,
            planes=tuple(np.zeros(shape, dtype=dtype)),
            classes=result_classes(spec, request),
            stack_axes="I" if planes > 1 else "",
            stack_shape=(planes,) if planes > 1 else (),
            pixel_size_um=None,
            scores=None,
            receipt={},
        ),
        io.BytesIO(),
    )


def read_image(
    reader: ImageReader, index: int, spec: ModelSpec, channel: int | None, allocate: Allocate | None
) -> tuple[Pixels, str | None]:
    """Decode the channels that the package wants of a plane that :func:`taken_channel` let pass.

    Parameters
    ----------
    reader, index
        The image, and which of its planes.
    spec, channel
        What takes it, and which channel it takes.
    allocate
        Makes an array that does not stand in memory; it is filled part by part. None to decode into memory.

    Returns
    -------
    tuple
        The image (y, x, c) and a note where something was done that the caller should know.

    Raises
    ------
    ImageMismatch
        Where a package of one channel meets three that differ.
    UndecodableImage
        Where the file is damaged.

    """
    header, wanted = reader.header, len(spec.channels)
    as_grey = channel is None and header.channels != wanted
    note = "three equal channels read as one grey channel" if as_grey else None
    if allocate is None:
        image_yxc = reader.read_plane(index)
        if as_grey and not _all_equal(image_yxc):
            raise mismatch(spec, header)
        first = 0 if as_grey else channel
        return (image_yxc if first is None else image_yxc[..., first : first + 1]), note
    image = allocate((*header.size_yx, wanted), header.dtype)
    for rows, channels, samples in reader.read_parts(index):
        if channel is not None:
            if channels.start <= channel < channels.stop:
                image[rows] = samples[..., channel - channels.start, np.newaxis]
        elif not as_grey:
            image[rows, :, channels] = samples
        else:
            if channels.start == 0:
                image[rows] = samples[..., :1]
            if not (samples == image[rows]).all():
                raise mismatch(spec, header)
    return image, note


def _all_equal(image_yxc: NDArray[Any]) -> bool:
    height, width, channels = image_yxc.shape
    bands = (image_yxc[rows] for rows in row_bands(height, width * channels))
    return all(bool((band[..., 1:] == band[..., :1]).all()) for band in bands)


def result_classes(spec: ModelSpec, request: SegmentRequest) -> tuple[str, ...]:
    """Names of what the result's values or channels stand for."""
    return spec.classes if request.output == "probabilities" else spec.mask_classes


def chosen_run(
    session: InferenceSession, spec: ModelSpec, requests: Sequence[SegmentRequest]
) -> tuple[Run, list[Reduce]]:
    """What of a net to run, and what the stitcher keeps of a tile's output for each request: as little as they need.

    At another scale than the image's own that is what is kept of the probabilities once they are scaled back.
    """
    if session.evidence is not None and all(_evidence_is_enough(spec, request) for request in requests):
        return session.evidence, [_of_evidence(spec, request) for request in requests]
    return session.run, [_of_probabilities(spec, request) for request in requests]


def _evidence_is_enough(spec: ModelSpec, request: SegmentRequest) -> bool:
    two_values = spec.label_rule.tells_object_or_not(len(spec.classes))
    enough = request.output == "labels" or (request.output == "mask" and two_values)
    # the mean of views is one of probabilities, and so are they scaled
    return enough and not request.mirror and request.scale is None


def _of_evidence(spec: ModelSpec, request: SegmentRequest) -> Reduce:
    if request.output == "labels":
        return lambda evidence_1yx: evidence_1yx[0]
    return lambda evidence_1yx: evidence_mask(evidence_1yx[0], spec.label_rule, request.threshold)


def _of_probabilities(spec: ModelSpec, request: SegmentRequest) -> Reduce:
    rule = spec.label_rule
    match request.output:
        case "mask":
            return lambda probabilities_cyx: class_mask(probabilities_cyx, rule, request.threshold)
        case "labels":
            return lambda probabilities_cyx: evidence_of(probabilities_cyx, rule)
        case "probabilities":
            return lambda probabilities_cyx: probabilities_cyx


def empty_plane(size_yx: tuple[int, int], spec: ModelSpec, output: OutputKind, allocate: Allocate) -> Pixels:
    """Array for the stitcher: (y, x) uint8 for a mask and float32 for labels, (c, y, x) float32 for probabilities."""
    if output == "mask":
        return allocate(size_yx, np.dtype(np.uint8))
    shape = (len(spec.classes), *size_yx) if output == "probabilities" else size_yx
    return allocate(shape, np.dtype(np.float32))
