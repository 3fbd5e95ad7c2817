"""Copies of images in OME-TIFF, which the service reads: of their full resolution, written some pixels at a time."""

from __future__ import annotations

import errno
import math
import operator
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import CancelledError
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from model.images import ImageTooLarge, UndecodableImage
from model.images.image import MAX_CHANNELS
from model.images.tiff_ifd import MAX_PAGES

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@dataclass(frozen=True, slots=True)
class Source:
    """An image that a copy can be made of."""

    what: str
    """How errors call it."""
    axes: str
    """Letters of t, c, z, y, x, and s last for red, green and blue."""
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    metadata: Mapping[str, Any]
    """Size of pixels, time between frames and names of channels, as tifffile takes them for OME-XML."""
    parts: Iterable[tuple[Sequence[int], Callable[[], NDArray[Any]]]]
    """Of its pixels: the index of the first of each part, and what reads it."""

    def check(self, most_pixels: float) -> None:
        """Refuse what is empty or too large, before anything is read.

        Raises
        ------
        UndecodableImage
            Where it has no pixel.
        ImageTooLarge
            Where it has more pixels, or more planes or channels than are read.

        """
        shape, by_axis = " x ".join(map(str, self.shape)), dict(zip(self.axes, self.shape, strict=True))
        if min(self.shape) < 1:
            raise UndecodableImage(f"{self.what} is {shape} pixels, none")
        declared = f"{self.what} declares {shape} ({', '.join(self.axes)})"
        of_pixel = by_axis.get("c", 1) * by_axis.get("s", 1)
        pixels = math.prod(self.shape) // of_pixel
        if pixels > most_pixels:
            raise ImageTooLarge(
                f"{declared}, {pixels} pixels of each channel, the limit is {most_pixels}; crop it, or raise "
                "UNET_MAX_PIXELS"
            )
        if (channels := by_axis.get("c", 1)) > MAX_CHANNELS:
            raise ImageTooLarge(f"{declared}, {channels} channels, the limit is {MAX_CHANNELS}; write fewer")
        if (planes := math.prod(self.shape) // math.prod(by_axis.get(axis, 1) for axis in "yxs")) > MAX_PAGES:
            raise ImageTooLarge(f"{declared}, {planes} planes, the limit is {MAX_PAGES}; split it, or crop it")


def write_copy(
    source: Source,
    copy: IO[bytes],
    closed: Callable[[], bool],
    check: Callable[[IO[bytes]], object],
) -> None:
    """Write a copy into an empty file.

    Parameters
    ----------
    source, copy
        The image and the file.
    closed
        Asked between parts whether nobody wants the copy any more.
    check
        Given the copy while it has a header and no pixel yet; may refuse it by an error.

    Raises
    ------
    OSError
        Where the temporary folder has no room for it.
    CancelledError
        Where nobody wants it any more.

    """
    needed, free = math.prod(source.shape) * source.dtype.itemsize, shutil.disk_usage(tempfile.gettempdir()).free
    if needed > free:
        raise _no_room(source.what, needed, free)
    try:
        offset, _ = tifffile.imwrite(  # nothing but zeros, which take no room
            tifffile.FileHandle(copy, name="copy.ome.tif"),  # which looks for a name, and finds a number
            shape=source.shape,
            dtype=source.dtype,
            bigtiff=True,
            ome=True,
            photometric="rgb" if source.axes.endswith("s") else "minisblack",
            returnoffset=True,
            metadata={"axes": source.axes.upper(), **source.metadata},
        )
        check(copy)
        for first, read in source.parts:
            if closed():
                raise CancelledError
            _put(copy, offset, source.shape, first, read().astype(source.dtype, order="C", copy=False))
        copy.flush()
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        with suppress(OSError):  # or it would be written at the end, and fail again
            copy.close()
        raise _no_room(source.what, needed, shutil.disk_usage(tempfile.gettempdir()).free) from error


def _no_room(what: str, needed: int, free: int) -> OSError:
    """Error of one image: smaller ones have room, and so it has not the number that ends a batch."""
    return OSError(
        f"the copy of {what} takes {needed} bytes, the temporary folder {tempfile.gettempdir()!r} has {free}; name a "
        "larger one in TMPDIR"
    )


def _put(copy: IO[bytes], offset: int, shape: Sequence[int], first: Sequence[int], pixels: NDArray[Any]) -> None:
    """Write a part of an array of this ``shape``, which stands in the file from byte ``offset`` on, row after row."""
    whole = len(shape)  # the axes from there on are all in the part, so that what runs along them is one piece
    while whole > 1 and pixels.shape[whole - 1] == shape[whole - 1]:
        whole -= 1
    steps = [math.prod(shape[axis + 1 :]) * pixels.itemsize for axis in range(len(shape))]
    start = offset + sum(map(operator.mul, first, steps))
    for index in np.ndindex(pixels.shape[: whole - 1]):
        copy.seek(start + sum(map(operator.mul, index, steps)))
        copy.write(pixels[index].data)
