"""Images in OME-Zarr as the files that the service reads: a copy of their full resolution in OME-TIFF.

The copy has no name on the disk, so that nothing is left of it however the process ends. It is written some chunks at a
time, each of which is decoded once, with axes, size of pixels and channel names; and one copy after the other: chunks
may be large.
"""

from __future__ import annotations

import asyncio
import errno
import itertools
import math
import operator
import shutil
import stat
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from model.images import ImageTooLarge, UndecodableImage, UnsupportedImageFormat
from model.images.image import MAX_CHANNELS
from model.images.tiff_ifd import MAX_PAGES
from service.batch.loops import end_tasks
from service.batch.ome_zarr import title_of
from service.batch.zarr_metadata import Level, damage, described, level_of
from service.batch.zarr_packed import is_packed, opened_array, packed_stem, place_of

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
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
ONE_AT_A_TIME = threading.Lock()
"""Held by whoever reads or writes arrays: at damage, all that zarr does is let go."""


@dataclass(frozen=True, slots=True)
class Readable:
    """A file to read an image from."""

    path: Path
    """Where it can be opened by this process."""
    name: str
    """What it is called in results."""


@contextmanager
def readable(
    image: Path,
    most_pixels: float = math.inf,
    closed: Callable[[], bool] = lambda: False,
    check: Callable[[IO[bytes]], object] = lambda _: None,
) -> Iterator[Readable]:
    """A file to read an image from: its own, or a copy of one in OME-Zarr that is there for as long as it is needed.

    Parameters
    ----------
    image
        A file, or one in OME-Zarr: a folder, or a file that it is packed in.
    most_pixels
        Of all planes together; no more are copied.
    closed
        Asked between chunks whether nobody wants the copy any more.
    check
        Given the copy while it has a header and no pixel yet; may refuse it by an error.

    Raises
    ------
    UndecodableImage
        Where it is empty or damaged, or its metadata are.
    UnsupportedImageFormat
        Where it has other axes than t, c, z, y and x, or other pixels than OME-TIFF has, is one of
        several in an archive, or ``zarr`` is not installed.
    ImageTooLarge
        Where it has more pixels, or more planes or channels than are read, or chunks that are too large.
    OSError
        Where it cannot be read, or is no file (to open a pipe would take until somebody writes to it), or the temporary
        folder has no room for the copy.
    CancelledError
        Where nobody wants it any more.

    """
    if not image.is_dir():
        status = image.stat()
        if not stat.S_ISREG(status.st_mode):
            raise OSError(f"{str(image)!r} is a pipe, a socket or a device; write the image to a file")
        if not status.st_size:
            raise UndecodableImage(f"{str(image)!r} is empty, it has 0 bytes; copy or write it again")
        if not is_packed(image):
            yield Readable(image, image.name)
            return
    with tempfile.TemporaryFile() as copy:
        with ONE_AT_A_TIME:
            _copy(image, copy, most_pixels, closed, check)
        title = packed_stem(image) if is_packed(image) else title_of(image)
        yield Readable(Path(f"/dev/fd/{copy.fileno()}"), f"{title}.ome.tif")


def _copy(
    image: Path,
    copy: IO[bytes],
    most_pixels: float,
    closed: Callable[[], bool],
    check: Callable[[IO[bytes]], object],
) -> None:
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
            _check(array, level, what, most_pixels)
            _copy_pixels(array, level, copy, what, closed, check=check)


def _copy_pixels(
    array: zarr.Array[Any],
    level: Level,
    copy: IO[bytes],
    what: str,
    closed: Callable[[], bool],
    *,
    check: Callable[[IO[bytes]], object],
) -> None:
    dtype = np.dtype(_IN_OME_TIFF[array.dtype.name])
    needed, free = math.prod(array.shape) * dtype.itemsize, shutil.disk_usage(tempfile.gettempdir()).free
    if needed > free:
        raise _no_room(what, needed, free)
    try:
        offset, _ = tifffile.imwrite(  # nothing but zeros, which take no room
            tifffile.FileHandle(copy, name="copy.ome.tif"),  # which looks for a name, and finds a number
            shape=array.shape,
            dtype=dtype,
            bigtiff=True,
            ome=True,
            photometric="minisblack",
            returnoffset=True,
            metadata={"axes": level.axes.upper(), **described(level, array.shape)},
        )
        check(copy)
        for block in blocks(array.shape, array.chunks, dtype.itemsize):
            if closed():
                raise CancelledError
            pixels = _read(array, block, what).astype(dtype, order="C", copy=False)
            _put(copy, offset, array.shape, [axis.start for axis in block], pixels)
        copy.flush()
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        with suppress(OSError):  # or it would be written at the end, and fail again
            copy.close()
        raise _no_room(what, needed, shutil.disk_usage(tempfile.gettempdir()).free) from error


def _check(array: zarr.Array[Any], level: Level, what: str, most_pixels: float) -> None:
    if array.ndim != len(level.axes):
        raise UndecodableImage(f"{what} has {array.ndim} dimensions, the axes are {', '.join(level.axes)}")
    if array.dtype.name not in _IN_OME_TIFF:
        raise UnsupportedImageFormat(
            f"{what} has pixels of type {array.dtype.name}; what can be read are {', '.join(_IN_OME_TIFF)}"
        )
    shape = " x ".join(map(str, array.shape))
    if 0 in array.shape:
        raise UndecodableImage(f"{what} is {shape} pixels, none")
    if 0 in array.chunks:
        raise UndecodableImage(
            f"{what} has chunks of {' x '.join(map(str, array.chunks))} pixels, none; write it again"
        )
    declared = f"{what} declares {shape} ({', '.join(level.axes)})"
    by_axis = dict(zip(level.axes, array.shape, strict=True))
    pixels, channels, planes = math.prod(array.shape), by_axis.get("c", 1), math.prod(array.shape[:-2])
    if pixels // channels > most_pixels:
        raise ImageTooLarge(
            f"{declared}, {pixels // channels} pixels of each channel, the limit is {most_pixels}; crop it, or raise "
            "UNET_MAX_PIXELS"
        )
    if channels > MAX_CHANNELS:
        raise ImageTooLarge(f"{declared}, {channels} channels, the limit is {MAX_CHANNELS}; write fewer")
    if planes > MAX_PAGES:
        raise ImageTooLarge(f"{declared}, {planes} planes, the limit is {MAX_PAGES}; split it, or crop it")
    if (chunk_bytes := math.prod(array.chunks) * array.dtype.itemsize) > _MOST_CHUNK_BYTES:
        raise ImageTooLarge(
            f"a chunk of {what} takes {chunk_bytes} bytes, the limit is {_MOST_CHUNK_BYTES}; write it in smaller chunks"
        )


def _no_room(what: str, needed: int, free: int) -> OSError:
    """Error of one image: smaller ones have room, and so it has not the number that ends a batch."""
    return OSError(
        f"the copy of {what} takes {needed} bytes, the temporary folder {tempfile.gettempdir()!r} has {free}; name a "
        "larger one in TMPDIR"
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
