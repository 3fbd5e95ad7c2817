"""What a request takes of memory and disk, from the header alone: whether its arrays stand in memory or in files."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from model.flooding import WINDOWS, flood_bytes
from model.images import ImageHeader
from model.labels import LABEL_BAND_PX
from model.linking import band_bytes
from model.pixels import Pixels, row_bands
from model.spec import ModelSpec
from service.engine.admission.series import Series
from service.engine.images.scaling import scaling_bytes, scaling_work_bytes
from service.engine.images.spool import MAPPED_BYTES
from service.engine.request import SegmentRequest
from service.formats import ENCODERS, OutputKind, SegmentationResult

_BYTES_PER_EDGE = 100  # measured: 1.2 GB for the 12 million edges of a 3000 x 3000 px image of noise as GeoJSON
_BYTES_PER_OUTLINED_PX = 24  # regions, their transpose and skimage's own labels, while outlines are traced
_BYTES_PER_BANDED_PX = 24  # masks, numbers and their copies, of a band that is labelled
_COPIES_OF_PART = 3  # of a part that is decoded: its bytes, as stored, as handed out
_ARRAYS_AT_ONCE = 3  # that are worked on and so partly resident, each up to twice MAPPED_BYTES


@dataclass(frozen=True, slots=True)
class Needs:
    """Most bytes that a request takes at a time."""

    memory_bytes: int
    disk_bytes: int
    """In the spool folder; 0 where all arrays stand in memory."""
    flood_window: int = WINDOWS[0]
    """See :func:`model.flooding.flood`."""

    @property
    def on_disk(self) -> bool:
        """Whether planes and results stand in files."""
        return self.disk_bytes > 0

    def within(self, most: Needs) -> bool:
        """Whether it is no more than there is."""
        return self.memory_bytes <= most.memory_bytes and self.disk_bytes <= most.disk_bytes

    def minus(self, ready: Series) -> Needs:
        """Return what answers that are ready leave of it."""
        memory, disk = self.memory_bytes - ready.memory_bytes, self.disk_bytes - ready.disk_bytes
        return replace(self, memory_bytes=memory, disk_bytes=disk)


def needs(
    header: ImageHeader, spec: ModelSpec, requests: Sequence[SegmentRequest], part_bytes: int, most: Needs
) -> Needs:
    """Decide by the size of an image where its arrays stand: in memory as long as they fit, else in files.

    A watershed takes the largest window that fits; files come after the smallest.

    Parameters
    ----------
    header, spec, requests
        What is to be done; requests for one image, equal but for their outputs, that one run of the net serves.
    part_bytes
        See :class:`model.images.ImageReader`.
    most
        What there is for all requests together; nothing goes to disk where there is none.

    """
    plane, scale = math.prod(header.size_yx), requests[0].scale
    labels = any(request.output == "labels" for request in requests)
    watershed = labels and spec.label_rule.method == "watershed"
    # bytes a pixel that the net fills and that finding objects takes; and working memory
    filled, finding = (4, 8 if watershed else 4) if labels else (0, 0)
    working = min(plane, LABEL_BAND_PX) * _BYTES_PER_BANDED_PX if labels else 0
    if labels and header.planes > 1 and requests[0].link is not None:
        working = max(working, band_bytes(header.size_yx))
    kept = sum(result_bytes(request.output, spec) for request in requests)
    reading = reading_bytes(header, part_bytes)
    # the decoded plane is gone when objects are looked for; one of finding's arrays is, when labels are written
    arrays = max(reading.decoded + plane * filled, plane * (filled + finding))
    # the encoded result is as large as the plain one at worst
    held = arrays + 2 * plane * header.planes * kept
    outlines = plane * _BYTES_PER_OUTLINED_PX if ENCODERS[requests[0].format].outlined else 0
    if scale is not None:
        held += scaling_bytes(header, scale, len(spec.classes))
        working = max(working, scaling_work_bytes(header, scale, len(spec.classes)))

    choices: list[Needs] = []
    for in_files in (False, True) if most.on_disk else (False,):
        for window in WINDOWS if watershed else WINDOWS[:1]:
            flooding = flood_bytes(header.size_yx, window) if watershed else 0
            if in_files:
                choices.append(Needs(reading.into_file + max(working, flooding, outlines), held, window))
            else:
                # while the last plane is decoded the results of those before it are there
                last = reading.into_memory + plane * (header.planes - 1) * kept
                choices.append(Needs(max(last, held + reading.kept + max(working, flooding)), 0, window))
    return next((choice for choice in choices if choice.memory_bytes <= most.memory_bytes), choices[-1])


def result_bytes(output: OutputKind, spec: ModelSpec) -> int:
    """Bytes of each pixel of what the net gives for an output, and of the output itself at most."""
    return {"mask": 1, "labels": 4, "probabilities": 4 * len(spec.classes)}[output]


class Reading(NamedTuple):
    """Bytes that decoding a plane takes."""

    decoded: int
    """Of the plane itself."""
    kept: int
    """Of what the reader keeps beside it in memory."""
    into_memory: int
    """Of memory while it is decoded, itself included."""
    into_file: int
    """Likewise, where the plane stands in a file."""


def reading_bytes(header: ImageHeader, part_bytes: int) -> Reading:
    """Say what decoding takes; for ``part_bytes`` see :class:`model.images.ImageReader`."""
    decoded = math.prod(header.size_yx) * header.channels * header.dtype.itemsize
    copies = (_COPIES_OF_PART - 1) * part_bytes
    # where no part of a file is of one plane alone, the reader keeps the stack
    kept = copies if part_bytes > decoded else 0
    return Reading(decoded, kept, decoded + copies, _COPIES_OF_PART * part_bytes + _ARRAYS_AT_ONCE * 2 * MAPPED_BYTES)


def encoder_memory(result: SegmentationResult, format_name: str) -> int:
    """Bytes that writing takes for what a result really holds, its objects or their edges."""
    encoder = ENCODERS[format_name]
    objects = sum(map(len, result.scores or ()))
    return objects * encoder.object_bytes + (outline_memory(result.planes) if encoder.of_edges else 0)


def outline_memory(planes: Sequence[Pixels]) -> int:
    """Bytes that an encoder of outlines or runs takes for its edges: noise has one at every pixel, cells have few."""
    edges = 0
    for plane_yx in planes:
        height, width = plane_yx.shape
        for rows in row_bands(height, width):
            band: np.ndarray[Any, Any] = plane_yx[rows.start : rows.stop + 1]
            own = band[: rows.stop - rows.start]
            edges += int(np.count_nonzero(band[1:] != band[:-1]))
            edges += int(np.count_nonzero(own[:, 1:] != own[:, :-1]))
    return edges * _BYTES_PER_EDGE
