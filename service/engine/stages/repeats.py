"""What the net gave for the last images: asked for again in another format or with another rule, none runs again.

A viewer tries thresholds, a page saves what it has drawn, a script is run once more: the same bytes come again, and all
but the net is quick. Only what stands in memory is kept, as much as a budget of its own holds, and for each user apart.
"""

from __future__ import annotations

import hashlib
import math
import weakref
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import BinaryIO, TypeAlias

import numpy as np

from model.images import ImageHeader
from model.labels import evidence_mask
from model.pixels import Pixels, row_bands
from service.engine.admission.wanted import WantedPixels
from service.engine.images.plane import FinishedPlane, InferredPlane
from service.engine.packages.loading import LoadedModel
from service.engine.request import SegmentRequest
from service.engine.stages.accepted import AcceptedRequest
from service.engine.stages.auto_scale import ScaledRequest, by_pixel_size
from service.engine.stages.needs import result_bytes
from service.formats import UNPLACED

RECALL = "recall"
"""The stage of what did not run again, in place of decoding, normalising and inference."""
Key: TypeAlias = tuple["weakref.ref[LoadedModel]", bytes, SegmentRequest]
"""The net, which a key does not hold, the hash of the file, and whose request asks what of the net."""


@dataclass(frozen=True, slots=True)
class Known:
    """What is kept of one image."""

    planes: Sequence[InferredPlane]
    scaled: ScaledRequest
    """The request that the net ran for."""
    size: int
    """Bytes."""


class Repeats:
    """Keeps what came last; what was asked for least lately is the first to go. Lives on one event loop.

    Parameters
    ----------
    most_bytes
        For all together; 0 keeps nothing.

    """

    def __init__(self, most_bytes: int) -> None:
        self._most = most_bytes
        self._kept: OrderedDict[Key, Known] = OrderedDict()
        self._promised = 0  # to those whose net runs

    async def look(
        self,
        source: BinaryIO,
        header: ImageHeader,
        requests: Sequence[SegmentRequest],
        chosen: LoadedModel,
        hashed: Callable[..., Awaitable[bytes]],
    ) -> Repeat:
        """Look whether one request for an image repeats another; several at once are not looked at.

        Parameters
        ----------
        source, header, requests, chosen
            The file, what it declares, what is wanted of it and the net.
        hashed
            Calls a function in a thread.

        """
        request, spec = requests[0], chosen.package.spec
        size = header.planes * math.prod(header.size_yx) * result_bytes(request.output, spec)
        if len(requests) > 1 or size > self._most:
            return Repeat(self, None, size)
        scaled = by_pixel_size(request, header, spec)
        asked = replace(scaled[0], auto_scale=False) if scaled else request
        image = weakref.ref(chosen), await hashed(_hash_of, source)
        key = (*image, _of_net(asked))
        known = own = self._recall(key)
        if known is None and request.output == "mask" and spec.label_rule.tells_object_or_not(len(spec.classes)):
            known = self._recall((*image, _of_net(replace(asked, output="labels"))))
        if known and not scaled:
            first, why = known.scaled
            scaled = replace(request, scale=first.scale), why
        return Repeat(self, key, size, known, scaled, of_evidence=own is None)

    def _recall(self, key: Key) -> Known | None:
        if key in self._kept:
            self._kept.move_to_end(key)
        return self._kept.get(key)

    @contextmanager
    def keeping(self, key: Key | None, size: int, scaled: ScaledRequest) -> Iterator[list[InferredPlane] | None]:
        """Give a list for the planes of an image, which is kept at the end of the ``with`` block, unless that fails.

        None where nothing is kept: without a key, or where there is no room beside what others were promised.
        """
        if key is None or size > self._most - self._promised:
            yield None
            return
        self._promised += size
        self._kept.pop(key, None)
        while self._promised + sum(known.size for known in self._kept.values()) > self._most:
            self._kept.popitem(last=False)
        planes: list[InferredPlane] = []
        try:
            yield planes
            self._kept[key] = Known(planes, scaled, size)
        finally:
            self._promised -= size


@dataclass(frozen=True, slots=True)
class Repeat:
    """One request, and what is known for it."""

    repeats: Repeats
    key: Key | None
    """None where it is not to be kept."""
    size: int
    """Bytes of what the net gives for it."""
    known: Known | None = None
    scaled: ScaledRequest | None = None
    """The request at its scale; None where that is yet to be found."""
    of_evidence: bool = False
    """Whether a mask was asked for, and what is known is what labels are made of."""

    async def planes(self, work: AcceptedRequest, about_scale: tuple[str, ...]) -> list[list[FinishedPlane]]:
        """Take all planes of the request through every stage but the encoder, or all but the net."""
        if self.known is not None:
            return [await self._recalled(work, plane) for plane in self.known.planes]
        key = None if work.room.on_disk else self.key
        with self.repeats.keeping(key, self.size, (work.requests[0], about_scale)) as kept:
            return [await self._inferred(work, index, kept) for index in range(work.reader.header.planes)]

    @staticmethod
    async def _inferred(work: AcceptedRequest, index: int, kept: list[InferredPlane] | None) -> list[FinishedPlane]:
        plane = await work.infer(index)
        if kept is not None:
            kept.append(plane)
        return await work.finish(plane)

    async def _recalled(self, work: AcceptedRequest, plane: InferredPlane) -> list[FinishedPlane]:
        with work.clock.stage(RECALL):
            if self.of_evidence:
                mask = partial(_mask_of, WantedPixels(plane.values[0], work.ticket), work)
                plane = replace(plane, values=[await work.in_worker(mask)])
        return await work.finish(plane)


def _of_net(request: SegmentRequest) -> SegmentRequest:
    """Leave out of a request whatever the net's part of it does not depend on."""
    asked = replace(
        request,
        model=None,
        format="",
        min_area=None,
        min_score=None,
        link=None,
        pixel_size_um=None,
        timeout_s=None,
        background=False,
        placement=UNPLACED,
        file_name=None,
    )
    if asked.output != "mask" and not asked.auto_scale:  # which looks for objects
        asked = replace(asked, threshold=None)
    return asked


def _hash_of(file: BinaryIO) -> bytes:
    place = file.tell()
    file.seek(0)
    try:
        return hashlib.file_digest(file, "sha256").digest()  # type: ignore[arg-type]
    finally:
        file.seek(place)


def _mask_of(evidence: Pixels, work: AcceptedRequest) -> Pixels:
    height, width = evidence.shape
    rule, threshold = work.chosen.package.spec.label_rule, work.requests[0].threshold
    mask = np.empty((height, width), np.uint8)
    for rows in row_bands(height, width):
        mask[rows] = evidence_mask(evidence[rows], rule, threshold)
    return mask
