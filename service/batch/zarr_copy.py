"""Images in OME-Zarr as the files that the service reads: a copy of their full resolution in OME-TIFF.

The copy has no name on the disk, so that nothing is left of it however the process ends. It is written some rows of
chunks at a time, with axes, size of pixels and channel names, and one at a time: chunks may be large.
"""

from __future__ import annotations

import errno
import itertools
import math
import shutil
import stat
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from model.images import ImageTooLarge, UndecodableImage, UnsupportedImageFormat
from model.images.errors import undecodable
from service.batch.ome_zarr import Level, described, level_of, title_of

if TYPE_CHECKING:
    import zarr

_IN_OME_TIFF = {
    **{name: name for name in ("uint8", "uint16", "uint32", "int8", "int16", "int32", "float32", "float64")},
    "bool": "uint8",
    "float16": "float32",
}
"""What types of pixels are copied as."""
_TILE_PX = 512
_MOST_BYTES = 1 << 28
"""Of pixels that are held at once so that chunks are decoded once; a single row of chunks may take more."""
_ONE_AT_A_TIME = threading.Lock()


@contextmanager
def readable(image: Path, most_pixels: float = math.inf, closed: Callable[[], bool] = lambda: False) -> Iterator[Path]:
    """A file to read an image from: its own, or a copy of one in OME-Zarr that is there for as long as it is needed.

    Parameters
    ----------
    image
        A file, or a folder in OME-Zarr.
    most_pixels
        Of all planes together; no more are copied.
    closed
        Asked between tiles whether nobody wants the copy any more.

    Raises
    ------
    UndecodableImage
        Where it is empty or damaged, or its metadata are.
    UnsupportedImageFormat
        Where it has other axes than t, c, z, y and x, or other pixels than OME-TIFF has, or ``zarr`` is not installed.
    ImageTooLarge
        Where it has more pixels.
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
        yield image
        return
    with tempfile.TemporaryFile() as copy, tempfile.TemporaryDirectory(prefix="unet-zarr-") as folder:
        named = Path(folder, f"{title_of(image)}.ome.tif")
        named.symlink_to(f"/dev/fd/{copy.fileno()}")
        with _ONE_AT_A_TIME:
            _copy(image, named, most_pixels, closed)
        yield named


def _copy(image: Path, copy: Path, most_pixels: float, closed: Callable[[], bool]) -> None:
    try:
        import zarr
    except ImportError as error:
        raise UnsupportedImageFormat(
            f"{str(image)!r} is OME-Zarr, which takes a library that is not installed; pip install zarr, or convert it "
            "to OME-TIFF"
        ) from error
    level = level_of(image)
    what = f"{level.path!r} in {str(image)!r}"
    with _damage(what):
        try:
            array = zarr.open_array(image / level.path, mode="r")
        except FileNotFoundError as error:
            raise UndecodableImage(f"{what} is not there; copy or write it again") from error
    _check(array, level, what, most_pixels)
    dtype = np.dtype(_IN_OME_TIFF[array.dtype.name])
    needed, free = math.prod(array.shape) * dtype.itemsize, shutil.disk_usage(tempfile.gettempdir()).free
    if needed > free:
        raise _no_room(what, needed, free)
    try:
        with copy.open("wb") as into:  # tifffile itself would follow the link to a name that is no more
            tifffile.imwrite(
                into,
                (tile.astype(dtype, copy=False) for tile in _tiles(array, what, closed)),
                shape=array.shape,
                dtype=dtype,
                bigtiff=True,
                ome=True,
                photometric="minisblack",
                tile=(_TILE_PX, _TILE_PX),
                metadata={"axes": level.axes.upper(), **described(image, level, array.shape)},
            )
    except OSError as error:
        if error.errno not in {None, errno.ENOSPC, errno.EDQUOT}:  # tifffile's own has none
            raise
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
    pixels = math.prod(size for axis, size in zip(level.axes, array.shape, strict=True) if axis != "c")
    if pixels > most_pixels:
        raise ImageTooLarge(
            f"{what} declares {shape} ({', '.join(level.axes)}), {pixels} pixels of each channel, the limit is "
            f"{most_pixels}; crop it, or raise UNET_MAX_PIXELS"
        )


def _no_room(what: str, needed: int, free: int) -> OSError:
    return OSError(
        errno.ENOSPC,
        f"the copy of {what} takes {needed} bytes, the temporary folder has {free}; name a larger one in TMPDIR",
        tempfile.gettempdir(),
    )


def _tiles(array: zarr.Array[Any], what: str, closed: Callable[[], bool]) -> Iterator[NDArray[Any]]:
    """Tiles of all planes, row by row."""
    for rows in _rows(array, what):
        for y, x in itertools.product(range(0, rows.shape[0], _TILE_PX), range(0, rows.shape[1], _TILE_PX)):
            if closed():
                raise CancelledError
            yield rows[y : y + _TILE_PX, x : x + _TILE_PX]


def _rows(array: zarr.Array[Any], what: str) -> Iterator[NDArray[Any]]:
    """Rows of all planes, a multiple of the tiles' at once; chunks are decoded once where what they hold has room."""

    def read(*index: Any) -> NDArray[Any]:  # noqa: ANN401 - numbers and slices
        with _damage(what):
            return np.asarray(array[index])

    height, width = array.shape[-2:]
    row_bytes = width * array.dtype.itemsize
    rows_px = math.lcm(_TILE_PX, array.chunks[-2])
    if rows_px * row_bytes > _MOST_BYTES:
        rows_px = _TILE_PX * math.ceil(array.chunks[-2] / _TILE_PX)
    depth = array.chunks[-3] if array.ndim > len("yx") else 1
    for before in np.ndindex(array.shape[:-3]):
        for first in range(0, array.shape[-3], depth) if array.ndim > len("yx") else (None,):
            if first is None:
                planes: list[tuple[Any, ...]] = [()]
            elif depth > 1 and depth * height * row_bytes <= _MOST_BYTES:
                yield from read(*before, slice(first, first + depth))
                continue
            else:
                planes = [(*before, plane) for plane in range(first, min(first + depth, array.shape[-3]))]
            for plane, top in itertools.product(planes, range(0, height, rows_px)):
                yield read(*plane, slice(top, top + rows_px))


@contextmanager
def _damage(what: str) -> Iterator[None]:
    """Call damage what is none of the disk's and of the memory's, which may pass."""
    passing: OSError | MemoryError | None = None
    with undecodable(what):
        try:
            yield
        except (OSError, MemoryError) as error:
            passing = error
        except Exception as error:
            if "codec" not in f"{type(error).__name__} {error}".lower():
                raise
            raise UnsupportedImageFormat(
                f"{what} is compressed as zarr cannot read here ({error}); install the package of that codec, or "
                "convert it to OME-TIFF"
            ) from error
    if passing is not None:
        raise passing
