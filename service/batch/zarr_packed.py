"""An image in OME-Zarr that is packed in one file, a ZIP archive, and read from there as from a folder.

Source: RFC 9 of NGFF (``.ozx``). Archives of other software may have a folder around the image, which is passed by.
"""

from __future__ import annotations

import math
import posixpath
import zipfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from model.images import UndecodableImage, UnsupportedImageFormat
from service.batch.zarr_metadata import NO_IMAGES, Place, attributes_of, damage, is_group

if TYPE_CHECKING:
    import zarr

_SUFFIXES = (".zarr.zip", ".ozx")
_PASSED_BY = {*NO_IMAGES, "__MACOSX"}
_DEEPEST = 16
_ROOM_BYTES = 1 << 20
"""That a chunk may take beside twice its pixels, which no compressor needs."""


def is_packed(file: Path) -> bool:
    """Whether a file is called as one that holds OME-Zarr."""
    return file.name.lower().endswith(_SUFFIXES)


def packed_stem(file: Path) -> str:
    """Name of a file without the suffixes of OME-Zarr."""
    suffix = next(suffix for suffix in _SUFFIXES if file.name.lower().endswith(suffix))
    return file.name[: -len(suffix)].removesuffix(".ome")


@contextmanager
def place_of(image: Path) -> Iterator[Place]:
    """Where the metadata of an image lie: its folder, or the one in the archive that it is.

    Raises
    ------
    UndecodableImage
        Where the archive is damaged.
    UnsupportedImageFormat
        Where it holds no image, or several.
    OSError
        Where it cannot be read.

    """
    if not is_packed(image) or image.is_dir():
        yield image
        return
    with damage(repr(str(image))):
        archive = zipfile.ZipFile(image)
    with archive:
        yield _image_in(archive, image)


def _image_in(archive: zipfile.ZipFile, image: Path) -> zipfile.Path:
    top = place = zipfile.Path(archive)
    below: list[zipfile.Path] = []
    for _ in range(_DEEPEST):
        attributes = attributes_of(place)
        if attributes is None or "multiscales" in attributes:
            return place
        below = [entry for entry in place.iterdir() if entry.is_dir() and _counts(entry, at_top=place is top)]
        if len(below) != 1:
            break
        (place,) = below
    raise UnsupportedImageFormat(
        f"{str(image)!r} holds {len(below)} groups and no image around them, one image can be read from a file; unpack "
        "it, and name the folder"
    )


def _counts(entry: zipfile.Path, *, at_top: bool) -> bool:
    named = entry.name not in _PASSED_BY and not entry.name.startswith(".")
    return named and (at_top or is_group(entry))


@contextmanager
def opened_array(place: Place, path: str) -> Iterator[zarr.Array[Any]]:
    """Open an array of an image to read it.

    Raises
    ------
    UndecodableImage
        Where a chunk in an archive would be unpacked to far more than its pixels take.
    FileNotFoundError
        Where there is none.

    """
    import zarr

    if isinstance(place, Path):
        yield zarr.open_array(place / path, mode="r")
        return
    from zarr.storage import ZipStore

    archive, inside = place.root, posixpath.normpath(posixpath.join(place.at, path))
    with closing(ZipStore(str(archive.filename), mode="r")) as store:
        array = zarr.open_array(store, path=inside, mode="r")
        _check_entries(archive, inside, array)
        yield array


def _check_entries(archive: zipfile.ZipFile, inside: str, array: zarr.Array[Any]) -> None:
    most = 2 * math.prod(array.shards or array.chunks) * array.dtype.itemsize + _ROOM_BYTES
    for entry in archive.infolist():
        if entry.filename.startswith(f"{inside}/") and entry.file_size > most:
            raise UndecodableImage(
                f"{entry.filename!r} in {archive.filename!r} is unpacked to {entry.file_size} bytes, the limit for a "
                f"chunk of its pixels is {most}; write it again"
            )
