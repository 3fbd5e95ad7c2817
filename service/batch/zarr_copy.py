"""Images in OME-Zarr as what a copy can be made of: some chunks at a time, each of which is decoded once."""

from __future__ import annotations

import asyncio
import itertools
import math
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from model.images import ImageTooLarge, UndecodableImage, UnsupportedImageFormat
from service.batch.copies import Source
from service.batch.loops import end_tasks
from service.batch.zarr_metadata import Level, damage, described, level_of
from service.batch.zarr_packed import opened_array, place_of

if TYPE_CHECKING:
    import zarr

_IN_OME_TIFF = {
    **{name: name for name in ("uint8", "uint16", "uint32", "int8", "int16", "int32", "float32", "float64")},
    "bool": "uint8",
    "float16": "float32",
}
"""What types of pixels are copied as."""
_BLOCK_BYTES = 1 << 26
"""Of pixels that are held at once, where chunks are no larger."""
_MOST_CHUNK_BYTES = 1 << 31
"""Of the pixels of a chunk, which cannot be decoded in parts; the compressor of most stores, Blosc, takes no more."""
ONE_AT_A_TIME = threading.Lock()
"""Held by whoever reads or writes arrays: at damage, all that zarr does is let go."""


@contextmanager
def zarr_source(image: Path) -> Iterator[Source]:
    """Open an image in OME-Zarr, a folder or a file that it is packed in, as what a copy can be made of.

    Raises
    ------
    UndecodableImage
        Where it is damaged, or its metadata are.
    UnsupportedImageFormat
        Where it has other axes than t, c, z, y and x, or other pixels than OME-TIFF has, is one of
        several in an archive, or ``zarr`` is not installed.
    ImageTooLarge
        Where it has chunks that are too large.
    OSError
        Where it cannot be read.

    """
    try:
        import zarr  # noqa: F401 - whether it is there
    except ImportError as error:
        raise UnsupportedImageFormat(
            f"{str(image)!r} is OME-Zarr, which takes a library that is not installed; pip install zarr, or convert it "
            "to OME-TIFF"
        ) from error
    with place_of(image) as place:
        level = level_of(place)
        what = f"{level.path!r} in {str(image)!r}"
        with ExitStack() as opened:
            with damage(what):
                try:
                    array = opened.enter_context(opened_array(place, level.path))
                except FileNotFoundError as error:
                    raise UndecodableImage(f"{what} is not there; copy or write it again") from error
            _check(array, level, what)
            dtype = np.dtype(_IN_OME_TIFF[array.dtype.name])
            parts = (
                ([axis.start for axis in block], partial(_read, array, block, what))
                for block in blocks(array.shape, array.chunks, dtype.itemsize)
            )
            yield Source(what, level.axes, array.shape, dtype, described(level, array.shape), parts)


def _check(array: zarr.Array[Any], level: Level, what: str) -> None:
    if array.ndim != len(level.axes):
        raise UndecodableImage(f"{what} has {array.ndim} dimensions, the axes are {', '.join(level.axes)}")
    if array.dtype.name not in _IN_OME_TIFF:
        raise UnsupportedImageFormat(
            f"{what} has pixels of type {array.dtype.name}; what can be read are {', '.join(_IN_OME_TIFF)}"
        )
    if 0 in array.chunks:
        raise UndecodableImage(
            f"{what} has chunks of {' x '.join(map(str, array.chunks))} pixels, none; write it again"
        )
    if (chunk_bytes := math.prod(array.chunks) * array.dtype.itemsize) > _MOST_CHUNK_BYTES:
        raise ImageTooLarge(
            f"a chunk of {what} takes {chunk_bytes} bytes, the limit is {_MOST_CHUNK_BYTES}; write it in smaller chunks"
        )


def blocks(shape: Sequence[int], chunks: Sequence[int], itemsize: int) -> Iterator[tuple[slice, ...]]:
    """Parts of an array that hold whole chunks, side by side as many as have room, so that each is decoded once."""
    step = [min(lengths) for lengths in zip(shape, chunks, strict=True)]
    for axis in reversed(range(len(shape))):
        room = max(1, _BLOCK_BYTES // (math.prod(step) * itemsize))
        step[axis] = min(shape[axis], step[axis] * room)
        if step[axis] < shape[axis]:
            break
    along = (range(0, size, length) for size, length in zip(shape, step, strict=True))
    for first in itertools.product(*along):
        yield tuple(slice(at, min(at + n, size)) for at, n, size in zip(first, step, shape, strict=True))


def _read(array: zarr.Array[Any], block: tuple[slice, ...], what: str) -> NDArray[Any]:
    """Pixels of a block."""
    with damage(what), letting_go():
        return np.asarray(array[block])
    raise AssertionError("it returns or raises")


@contextmanager
def letting_go() -> Iterator[None]:
    """Let all other chunks go at an error of one, which zarr would go on with, and tell of when the process ends."""
    from zarr.core.sync import sync

    try:
        yield
    except BaseException:
        sync(_let_go())
        raise


async def _let_go() -> None:
    """End all that zarr does, on its loop; one array at a time is read or written."""
    asyncio.get_running_loop().set_exception_handler(lambda _loop, _context: None)  # of errors beside the first
    await end_tasks()
