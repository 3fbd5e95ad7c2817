"""What the metadata of an image in OME-Zarr say of it (NGFF 0.1 to 0.5): arrays, axes, places, names of channels.

Source: https://ngff.openmicroscopy.org/0.5 and 0.4, sections "multiscales", "plate", "omero".
"""

from __future__ import annotations

import errno
import json
import math
import os
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from model.images import UndecodableImage, UnsupportedImageFormat
from model.images.errors import undecodable
from model.images.tiff_ome import UNITS_UM

Place: TypeAlias = Path | zipfile.Path
"""A folder, on a disk or in an archive."""

GROUP_FILES = ("zarr.json", ".zgroup", ".zattrs")
"""Metadata of a group, Zarr 3 and 2; arrays may have the first and the last, too."""
NO_IMAGES = {"labels", "OME"}
"""Groups that hold what belongs to images: segmentations, metadata."""

_MOST_PACKED_BYTES = 1 << 26
"""Of metadata in an archive, which may unpack to anything."""
_BEFORE_0_3 = "tczyx"  # which every image had then
_AXES = "tczyx"
_OF_TYPES = {"time": "t", "channel": "c"}
_DAMAGED = (KeyError, IndexError, TypeError, ValueError, AttributeError)
"""What metadata raise that have other members than they should."""


def is_zarr(folder: Place) -> bool:
    """Whether a folder is a group or an array of Zarr, so that the files in it are no images of their own."""
    return any(_is_there(folder / name) for name in (*GROUP_FILES, ".zarray"))


def _is_there(entry: Place) -> bool:
    return entry.exists() if isinstance(entry, zipfile.Path) else os.path.lexists(entry)


@dataclass(frozen=True, slots=True)
class Resolution:
    """One array of an image, and where its pixels lie; along each axis, in its unit."""

    path: str
    scale: tuple[float, ...]
    """Distance of two pixels."""
    translation: tuple[float, ...]
    """Of the first pixel."""


@dataclass(frozen=True, slots=True)
class Level(Resolution):
    """The full resolution of an image."""

    axes: str
    units: tuple[str, ...]
    channels: tuple[str, ...]
    """Names of the first of them, empty where one has none."""
    lower: tuple[Resolution, ...]
    """Its lower resolutions, finest first, as far as their metadata are whole."""


def level_of(image: Place) -> Level:
    """Read which array holds the full resolution, and what its axes are.

    Raises
    ------
    UndecodableImage
        Where the metadata are damaged, or are none of an image.
    UnsupportedImageFormat
        Where it is an array without metadata of an image, or has other axes than t, c, z, y and x.
    OSError
        Where its metadata cannot be read.

    """
    attributes = attributes_of(image)
    if not is_group(image) and is_zarr(image):
        raise UnsupportedImageFormat(
            f"{str(image)!r} is an array of Zarr, not an image in OME-Zarr: nothing tells what its axes are; name the "
            "group that it belongs to, or write it as OME-Zarr or TIFF"
        )
    if attributes is None:
        raise UndecodableImage(f"the metadata of {str(image)!r} are damaged, they are no JSON; copy or write it again")
    if "multiscales" not in attributes:
        raise UndecodableImage(
            f"{str(image)!r} is a folder, and no image in OME-Zarr: no metadata tell of multiscales; in a list name "
            "each field of a plate, elsewhere the plate"
        )
    try:
        multiscale = attributes["multiscales"][0]
        full, *others = multiscale["datasets"]
        axes = [axis if isinstance(axis, dict) else {"name": axis} for axis in multiscale.get("axes") or _BEFORE_0_3]
        names = "".join(map(_letter, axes))
        resolution = _resolution(full, multiscale, len(axes))
        units = tuple(str(axis.get("unit", "")) for axis in axes)
    except _DAMAGED as error:
        raise UndecodableImage(f"the metadata (multiscales) of {str(image)!r} are damaged: {error!r}") from error
    if set(names) - set(_AXES) or len(set(names)) < len(names) or not names.endswith("yx"):
        raise UnsupportedImageFormat(
            f"{str(image)!r} has the axes {', '.join(str(axis['name']) for axis in axes)}; what can be read are t, c, "
            "z, y and x, each once, y and x last"
        )
    if _is_outside(resolution.path):
        raise UndecodableImage(
            f"the full resolution of {str(image)!r} is said to be at {resolution.path!r}, outside of it"
        )
    lower = []
    for other in others:
        with suppress(*_DAMAGED):
            lower.append(_resolution(other, multiscale, len(axes)))
    return Level(
        resolution.path,
        resolution.scale,
        resolution.translation,
        axes=names,
        units=units,
        channels=_channel_names(attributes),
        lower=tuple(one for one in lower if not _is_outside(one.path)),
    )


def _resolution(dataset: Mapping[str, Any], multiscale: Mapping[str, Any], axes: int) -> Resolution:
    """One array as its own metadata and those of all resolutions say, in this order."""
    scale, translation = np.ones(axes), np.zeros(axes)
    for transforms in (dataset, multiscale):
        for transform in transforms.get("coordinateTransformations") or ():
            if transform["type"] == "scale" and "scale" in transform:
                by = np.asarray(transform["scale"], float).reshape(axes)
                with np.errstate(all="ignore"):  # JSON of Python has infinity
                    scale, translation = scale * by, translation * by
            if transform["type"] == "translation" and "translation" in transform:
                translation = translation + np.asarray(transform["translation"], float).reshape(axes)
    return Resolution(str(dataset["path"]), tuple(map(float, scale)), tuple(map(float, translation)))


def _is_outside(path: str) -> bool:
    return "\0" in path or Path(path).is_absolute() or ".." in Path(path).parts


def _letter(axis: Mapping[str, Any]) -> str:
    """Letter of an axis: its name, or what its type says of it, as a channel's name is free."""
    name = str(axis["name"]).lower()
    return name if len(name) == 1 and name in _AXES else _OF_TYPES.get(str(axis.get("type")), "?")


def _channel_names(attributes: Mapping[str, Any]) -> tuple[str, ...]:
    omero = attributes.get("omero")
    channels = omero.get("channels") if isinstance(omero, dict) else None
    labels = [channel.get("label") if isinstance(channel, dict) else None for channel in channels or ()]
    # XML takes no other characters
    return tuple(
        "".join(letter if letter.isprintable() else " " for letter in str("" if label is None else label))
        for label in labels
    )


def declared_shape(array: Place) -> tuple[int, ...] | None:
    """Lengths of the axes of an array; None where its metadata are not there, or damaged."""
    for name in ("zarr.json", ".zarray"):
        with suppress(OSError):
            try:
                return tuple(map(int, (_json(array / name) or {})["shape"]))
            except _DAMAGED:
                return None
    return None


def described(level: Level, shape: Sequence[int]) -> dict[str, Any]:
    """Size of pixels, time between frames and names of channels, as tifffile takes them for OME-XML."""
    found: dict[str, Any] = {}
    for axis, size, unit in zip(level.axes, level.scale, level.units, strict=True):
        um = UNITS_UM.get(unit, UNITS_UM.get(unit.lower()))
        if axis in "zyx" and um is not None and 0 < size * um < math.inf:
            found |= {f"PhysicalSize{axis.upper()}": size * um, f"PhysicalSize{axis.upper()}Unit": "µm"}
        if axis == "t" and unit in _TIMES and 0 < size < math.inf:
            found |= {"TimeIncrement": size, "TimeIncrementUnit": _TIMES[unit]}
    if "c" in level.axes and any(level.channels):
        number = shape[level.axes.index("c")]
        found["Channel"] = {"Name": [*level.channels, *[""] * number][:number]}
    return found


_TIMES = {"millisecond": "ms", "second": "s", "minute": "min", "hour": "h", "day": "d"}
"""Units of UDUNITS-2 that NGFF recommends, and OME's symbols."""
_TIMES |= {symbol: symbol for symbol in _TIMES.values()}


def is_group(folder: Place) -> bool:
    """Whether a folder is a group of Zarr, or claims to be; arrays are none."""
    if not any(_is_there(folder / name) for name in GROUP_FILES) or _is_there(folder / ".zarray"):
        return False
    if not _is_there(folder / "zarr.json"):
        return True
    with suppress(OSError):
        return (_json(folder / "zarr.json") or {}).get("node_type") != "array"
    return True


def attributes_if_readable(folder: Path) -> Mapping[str, Any] | None:
    """What a group says of itself; None where that cannot be understood, or not be read."""
    with suppress(OSError):
        return attributes_of(folder)
    return None


def attributes_of(folder: Place) -> Mapping[str, Any] | None:
    """What a group says of itself; of NGFF 0.5 what stands below ``ome``. None where that cannot be understood."""
    if not _is_there(folder / "zarr.json"):
        return _json(folder / ".zattrs") if _is_there(folder / ".zattrs") else {}
    found = _json(folder / "zarr.json")
    attributes = None if found is None else found.get("attributes", {})
    if not isinstance(attributes, dict):
        return None
    below = attributes.get("ome", attributes)
    return below if isinstance(below, dict) else None


def _json(file: Place) -> dict[str, Any] | None:
    """The object in a file; None where that is damaged, an error where it cannot be read."""
    content = _unpacked(file) if isinstance(file, zipfile.Path) else file.read_bytes()
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _unpacked(file: zipfile.Path) -> bytes:
    try:
        size_bytes = file.root.getinfo(file.at).file_size
    except KeyError as error:
        raise FileNotFoundError(errno.ENOENT, "is not in the archive", str(file)) from error
    if size_bytes > _MOST_PACKED_BYTES:
        raise UndecodableImage(
            f"the metadata {str(file)!r} are unpacked to {size_bytes} bytes, the limit is {_MOST_PACKED_BYTES}; write "
            "them again"
        )
    with damage(repr(str(file))):
        return file.read_bytes()
    raise AssertionError("it returns or raises")


@contextmanager
def damage(what: str) -> Iterator[None]:
    """Call damage what is none of the disk's and of the memory's, which may pass."""
    passing: OSError | MemoryError | None = None
    with undecodable(what):
        try:
            yield
        except (OSError, MemoryError) as error:
            if isinstance(error, OSError) and error.errno is None:  # a codec's, as gzip's and bzip2's
                raise
            passing = error
        except Exception as error:
            if isinstance(error, UnicodeError) or "codec" not in f"{type(error).__name__} {error}".lower():
                raise
            raise UnsupportedImageFormat(
                f"{what} is compressed as zarr cannot read here ({error}); install the package of that codec, or "
                "convert it to OME-TIFF"
            ) from error
    if passing is not None:
        raise passing
