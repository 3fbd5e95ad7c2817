"""Images in OME-Zarr (NGFF 0.1 to 0.5): folders of chunks, found and described by their metadata.

Source: https://ngff.openmicroscopy.org/0.5 and 0.4, sections "multiscales", "plate", "omero".
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from model.images import FormatError, UndecodableImage, UnsupportedImageFormat
from model.images.tiff_ome import UNITS_UM

SUFFIX = ".zarr"

_GROUPS = ("zarr.json", ".zgroup", ".zattrs")
"""Metadata of a group, Zarr 3 and 2; arrays may have the first and the last, too."""
_NO_IMAGES = {"labels", "OME"}
"""Groups that hold what belongs to images: segmentations, metadata."""
_DEEPEST = 16
"""Groups within groups: a field of a plate is in the third."""
_BEFORE_0_3 = "tczyx"  # which every image had then
_AXES = "tczyx"
_OF_TYPES = {"time": "t", "channel": "c"}


def is_zarr(folder: Path) -> bool:
    """Whether a folder is a group or an array of Zarr, so that the files in it are no images of their own."""
    return any(map(os.path.lexists, (folder / name for name in (*_GROUPS, ".zarray"))))


def images_in(folder: Path) -> Iterator[Path | OSError]:
    """Groups that are images, in the order of their names: the folder itself, or fields and series below it, each once.

    Among them are groups whose metadata cannot be read, or are missing beside arrays: that shows when they are read.
    Groups that say of themselves to be something else, such as tables, are none. What cannot be looked into comes as
    the error that says so.
    """
    yield from _images_in(folder, set(), _DEEPEST)


def _images_in(folder: Path, seen: set[tuple[int, int]], deepest: int) -> Iterator[Path | OSError]:
    try:
        status = folder.stat()
        entries = sorted((entry for entry in folder.iterdir() if entry.name not in _NO_IMAGES), key=_in_order)
    except OSError as error:
        yield error
        return
    if (status.st_dev, status.st_ino) in seen or not deepest or not _is_group(folder):
        return
    seen.add((status.st_dev, status.st_ino))
    attributes = _attributes_if_readable(folder)
    if attributes is None or "multiscales" in attributes:
        yield folder
        return
    below = [entry for entry in entries if os.path.isdir(entry)]  # noqa: PTH112 - Path's raises where it may not look
    for entry in below:
        yield from _images_in(entry, seen, deepest - 1)
    if not attributes and any(is_zarr(entry) and not _is_group(entry) for entry in below):
        yield folder


def files_of(image: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Files that an image is read from and that are there: itself, or of OME-Zarr metadata and full resolution.

    Segmentations and lower resolutions may come and go beside these, and files of a writer that is at work.

    Raises
    ------
    OSError
        Where there is no such image.

    """
    status = image.stat()
    if not image.is_dir():
        yield image, status
        return
    for file in _files_in(image):
        with suppress(FileNotFoundError):
            yield file, file.stat()


def _files_in(image: Path) -> Iterator[Path]:
    yield from (image / name for name in _GROUPS)
    with suppress(FormatError, OSError):  # which shows when it is read
        for folder, _, names in os.walk(image / level_of(image).path):
            yield from (Path(folder, name) for name in names)


def stem_of(folder: Path) -> str:
    """Name of a folder without the suffixes of OME-Zarr."""
    return folder.name.removesuffix(SUFFIX).removesuffix(".ome")


def title_of(image: Path) -> str:
    """Names of an image and of the groups around it, without suffix: plate_A_1_0."""
    image = outermost = Path(os.path.abspath(image))  # noqa: PTH100 - links in it are names, too
    while outermost != outermost.parent and is_zarr(outermost.parent):
        outermost = outermost.parent
    return "_".join((stem_of(outermost), *image.relative_to(outermost).parts))


@dataclass(frozen=True, slots=True)
class Level:
    """The full resolution of an image."""

    path: str
    axes: str
    scale: tuple[float, ...]
    units: tuple[str, ...]
    channels: tuple[str, ...]
    """Names of the first of them, empty where one has none."""


def level_of(image: Path) -> Level:
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
    attributes = _attributes(image)
    if not _is_group(image) and is_zarr(image):
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
        dataset = multiscale["datasets"][0]
        path = str(dataset["path"])
        axes = [axis if isinstance(axis, dict) else {"name": axis} for axis in multiscale.get("axes") or _BEFORE_0_3]
        names = "".join(map(_letter, axes))
        scale = np.ones(len(axes))
        for transforms in (dataset, multiscale):
            for transform in transforms.get("coordinateTransformations") or ():
                if transform["type"] == "scale" and "scale" in transform:
                    scale = scale * np.asarray(transform["scale"], float).reshape(len(axes))
        units = tuple(str(axis.get("unit", "")) for axis in axes)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise UndecodableImage(f"the metadata (multiscales) of {str(image)!r} are damaged: {error!r}") from error
    if set(names) - set(_AXES) or len(set(names)) < len(names) or not names.endswith("yx"):
        raise UnsupportedImageFormat(
            f"{str(image)!r} has the axes {', '.join(str(axis['name']) for axis in axes)}; what can be read are t, c, "
            "z, y and x, each once, y and x last"
        )
    if "\0" in path or Path(path).is_absolute() or ".." in Path(path).parts:
        raise UndecodableImage(f"the full resolution of {str(image)!r} is said to be at {path!r}, outside of it")
    return Level(path, names, tuple(map(float, scale)), units, _channel_names(attributes))


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


def _is_group(folder: Path) -> bool:
    """Whether a folder is a group of Zarr, or claims to be; arrays are none."""
    if not any(os.path.lexists(folder / name) for name in _GROUPS) or os.path.lexists(folder / ".zarray"):
        return False
    if not os.path.lexists(folder / "zarr.json"):
        return True
    with suppress(OSError):
        return (_json(folder / "zarr.json") or {}).get("node_type") != "array"
    return True


def _attributes_if_readable(folder: Path) -> Mapping[str, Any] | None:
    with suppress(OSError):
        return _attributes(folder)
    return None


def _attributes(folder: Path) -> Mapping[str, Any] | None:
    """What a group says of itself; of NGFF 0.5 what stands below ``ome``. None where that cannot be understood."""
    if not os.path.lexists(folder / "zarr.json"):
        return _json(folder / ".zattrs") if os.path.lexists(folder / ".zattrs") else {}
    found = _json(folder / "zarr.json")
    attributes = None if found is None else found.get("attributes", {})
    if not isinstance(attributes, dict):
        return None
    below = attributes.get("ome", attributes)
    return below if isinstance(below, dict) else None


def _json(file: Path) -> dict[str, Any] | None:
    """The object in a file; None where that is damaged, an error where it cannot be read."""
    content = file.read_bytes()
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _in_order(entry: Path) -> tuple[bool, int, str]:
    """Numbers by their value: field 10 comes after field 9; links come after folders."""
    return entry.is_symlink(), int(entry.name) if entry.name.isdecimal() else -1, entry.name
