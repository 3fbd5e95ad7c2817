"""Images in OME-Zarr (NGFF 0.1 to 0.5): folders of chunks, found by their metadata, copied to OME-TIFF to be read.

The service reads files. An image in OME-Zarr, one of them or a field of a plate, is therefore copied at its full
resolution to a temporary file, a row of tiles at a time, with its axes, size of pixels and channel names.

Source: https://ngff.openmicroscopy.org/0.5 and 0.4, sections "multiscales", "plate", "omero".
"""

from __future__ import annotations

import json
import math
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from model.images import FormatError, UndecodableImage, UnsupportedImageFormat
from model.images.errors import undecodable

if TYPE_CHECKING:
    import zarr

SUFFIX = ".zarr"

_GROUPS = ("zarr.json", ".zgroup")
"""Metadata of a group, Zarr 3 and 2; arrays of Zarr 3 have the first, too."""
_NO_IMAGES = {"labels", "OME"}
"""Groups that hold what belongs to images: segmentations, metadata."""
_IN_OME_TIFF = {
    **{name: name for name in ("uint8", "uint16", "uint32", "int8", "int16", "int32", "float32", "float64")},
    "bool": "uint8",
    "float16": "float32",
}
"""What types of pixels are copied as."""
_TILE_PX = 512
_BEFORE_0_3 = "tczyx"  # which every image had then
_AXES = "tczyx"


def is_zarr(folder: Path) -> bool:
    """Whether a folder is a group or an array of Zarr, so that the files in it are no images of their own."""
    return any(map(os.path.lexists, (folder / name for name in (*_GROUPS, ".zarray"))))


def images_in(folder: Path) -> Iterator[Path]:
    """Groups that are images, in the order of their names: the folder itself, or fields and series below it.

    Raises
    ------
    OSError
        Where a folder cannot be looked into.

    """
    if not any(os.path.isfile(folder / name) for name in _GROUPS):  # noqa: PTH113 - Path's raises where it may not look
        if folder.suffix == SUFFIX:
            os.listdir(folder)  # noqa: PTH208 - raises where that is why
        return
    if "multiscales" in _attributes(folder):
        yield folder
        return
    below = (entry for entry in folder.iterdir() if entry.name not in _NO_IMAGES and entry.is_dir())
    for entry in sorted(below, key=_in_order):
        yield from images_in(entry)


def stem_of(folder: Path) -> str:
    """Name of a folder without the suffixes of OME-Zarr."""
    return folder.name.removesuffix(SUFFIX).removesuffix(".ome")


def files_of(image: Path) -> Iterator[Path]:
    """Files that an image is read from: itself, or metadata and the chunks of the full resolution of one in OME-Zarr.

    Segmentations and lower resolutions may come and go beside these.
    """
    if not image.is_dir():
        yield image
        return
    yield from (path for name in (*_GROUPS, ".zattrs") if (path := image / name).exists())
    with suppress(FormatError):  # which shows when it is read
        for folder, _, names in os.walk(image / _level(image).path):
            yield from (Path(folder, name) for name in names)


@contextmanager
def readable(image: Path) -> Iterator[Path]:
    """A file to read an image from: its own, or a copy of one in OME-Zarr that is there for as long as it is needed.

    Raises
    ------
    UndecodableImage
        Where it is empty or damaged, or its metadata are.
    UnsupportedImageFormat
        Where it has other axes than t, c, z, y and x, or ``zarr`` is not installed.
    OSError
        Where it cannot be found, or is no file: to open a pipe would take until somebody writes to it.

    """
    if not image.is_dir():
        status = image.stat()
        if not stat.S_ISREG(status.st_mode):
            raise OSError(f"{str(image)!r} is a pipe, a socket or a device; write the image to a file")
        if not status.st_size:
            raise UndecodableImage(f"{str(image)!r} is empty, it has 0 bytes; copy or write it again")
        yield image
        return
    with TemporaryDirectory(prefix="unet-zarr-") as folder:
        copy = Path(folder, f"{_title(image)}.ome.tif")
        _copy(image, copy)
        yield copy


@dataclass(frozen=True, slots=True)
class _Level:
    """The full resolution of an image."""

    path: str
    axes: str
    scale: tuple[float, ...]
    units: tuple[str, ...]


def _copy(image: Path, copy: Path) -> None:
    try:
        import zarr
    except ImportError as error:
        raise UnsupportedImageFormat(
            f"{str(image)!r} is OME-Zarr, which takes a library that is not installed; pip install zarr, or convert it "
            "to OME-TIFF"
        ) from error
    level = _level(image)
    what = f"{level.path!r} in {str(image)!r}"
    with undecodable(what):
        array = zarr.open_array(image / level.path, mode="r")
    if array.ndim != len(level.axes):
        raise UndecodableImage(f"{what} has {array.ndim} dimensions, the axes are {', '.join(level.axes)}")
    dtype = _IN_OME_TIFF.get(array.dtype.name)
    if dtype is None:
        raise UnsupportedImageFormat(
            f"{what} has pixels of type {array.dtype.name}; what can be read are {', '.join(_IN_OME_TIFF)}"
        )
    if 0 in array.shape:
        raise UndecodableImage(f"{what} is {' x '.join(map(str, array.shape))} pixels, none")
    tifffile.imwrite(
        copy,
        (tile.astype(dtype, copy=False) for tile in _tiles(array, what)),
        shape=array.shape,
        dtype=dtype,
        bigtiff=True,
        ome=True,
        photometric="minisblack",
        tile=(_TILE_PX, _TILE_PX),
        metadata={"axes": level.axes.upper(), **_described(image, level, array.shape)},
    )


def _tiles(array: zarr.Array[Any], what: str) -> Iterator[NDArray[Any]]:
    """Tiles of all planes, row by row; as many rows at once are read as chunks have, which are decoded once then."""
    height, width = array.shape[-2:]
    rows_px = _TILE_PX * math.ceil(array.chunks[-2] / _TILE_PX)
    for plane in np.ndindex(array.shape[:-2]):
        for top in range(0, height, rows_px):
            with undecodable(what):
                rows = np.asarray(array[(*plane, slice(top, top + rows_px))])
            for y in range(0, rows.shape[0], _TILE_PX):
                for x in range(0, width, _TILE_PX):
                    yield rows[y : y + _TILE_PX, x : x + _TILE_PX]


def _level(image: Path) -> _Level:
    """Read which array holds the full resolution, and what its axes are.

    Raises
    ------
    UndecodableImage, UnsupportedImageFormat
        As for :func:`readable`.

    """
    attributes = _attributes(image)
    if "multiscales" not in attributes:
        raise UndecodableImage(
            f"{str(image)!r} is a folder, and no image in OME-Zarr: no metadata tell of multiscales; in a list name "
            "each field of a plate, elsewhere the plate"
        )
    try:
        multiscale = attributes["multiscales"][0]
        dataset = multiscale["datasets"][0]
        path = str(dataset["path"])
        axes = [axis if isinstance(axis, dict) else {"name": axis} for axis in multiscale.get("axes", _BEFORE_0_3)]
        names = "".join(str(axis["name"]) if len(str(axis["name"])) == 1 else "?" for axis in axes)
        scale = np.ones(len(axes))
        for transforms in (dataset, multiscale):
            for transform in transforms.get("coordinateTransformations", ()):
                if transform["type"] == "scale" and "scale" in transform:
                    scale = scale * np.asarray(transform["scale"], float)
        units = tuple(str(axis.get("unit", "")) for axis in axes)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise UndecodableImage(f"the metadata (multiscales) of {str(image)!r} are damaged: {error!r}") from error
    if set(names) - set(_AXES) or len(set(names)) < len(names) or not names.endswith("yx"):
        raise UnsupportedImageFormat(
            f"{str(image)!r} has the axes {', '.join(str(axis['name']) for axis in axes)}; what can be read are t, c, "
            "z, y and x, each once, y and x last"
        )
    if Path(path).is_absolute() or ".." in Path(path).parts:
        raise UndecodableImage(f"the full resolution of {str(image)!r} is said to be at {path!r}, outside of it")
    return _Level(path, names, tuple(map(float, scale)), units)


def _described(image: Path, level: _Level, shape: Sequence[int]) -> dict[str, Any]:
    """Size of pixels, time between frames and names of channels, as tifffile takes them for OME-XML."""
    described: dict[str, Any] = {}
    for axis, size, unit in zip(level.axes, level.scale, level.units, strict=True):
        if axis in "zyx" and unit in _UNITS and 0 < size < math.inf:
            described |= {f"PhysicalSize{axis.upper()}": size, f"PhysicalSize{axis.upper()}Unit": _UNITS[unit]}
        if axis == "t" and unit in _TIMES and 0 < size < math.inf:
            described |= {"TimeIncrement": size, "TimeIncrementUnit": _TIMES[unit]}
    channels = _attributes(image).get("omero", {})
    channels = channels.get("channels", ()) if isinstance(channels, dict) else ()
    if "c" in level.axes and isinstance(channels, Sequence):
        names = [str(channel.get("label", "")) if isinstance(channel, dict) else "" for channel in channels]
        if any(names):
            number = shape[level.axes.index("c")]
            described["Channel"] = {"Name": (names + [""] * number)[:number]}
    return described


_UNITS = {"angstrom": "Å", "nanometer": "nm", "micrometer": "µm", "millimeter": "mm", "centimeter": "cm", "meter": "m"}
"""Units of UDUNITS-2 that NGFF recommends, and OME's symbols."""
_TIMES = {"millisecond": "ms", "second": "s", "minute": "min", "hour": "h"}


def _attributes(folder: Path) -> Mapping[str, Any]:
    """What a group says of itself; of NGFF 0.5 what stands below ``ome``. Empty where it is damaged."""
    try:
        if (folder / "zarr.json").exists():
            found = json.loads((folder / "zarr.json").read_bytes())["attributes"]["ome"]
        else:
            found = json.loads((folder / ".zattrs").read_bytes())
    except (FileNotFoundError, KeyError, TypeError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _title(image: Path) -> str:
    """Names of an image and of the groups around it, without suffix: plate_A_1_0."""
    outermost = image
    while is_zarr(outermost.parent):
        outermost = outermost.parent
    return "_".join((stem_of(outermost), *image.relative_to(outermost).parts))


def _in_order(entry: Path) -> tuple[int, str]:
    """Numbers by their value: field 10 comes after field 9."""
    return int(entry.name) if entry.name.isdecimal() else -1, entry.name
