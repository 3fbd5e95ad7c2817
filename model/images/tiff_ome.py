"""OME-XML in the description of a TIFF: how the pages of this one file make a stack.

Open Microscopy Environment, OME-TIFF specification 6.x, elements ``Pixels``, ``TiffData`` and ``UUID``. Only the first
image is read. Other files that the metadata names are never opened, whatever they are called.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from xml.parsers import expat

import numpy as np
from numpy.typing import NDArray

from model.images.image import MAX_CHANNELS
from model.images.tiff_ifd import MAX_PAGES

UNITS_UM: Mapping[str, float] = {
    "µm": 1.0, "μm": 1.0, "um": 1.0, "micron": 1.0, "microns": 1.0, "micrometer": 1.0, "micrometre": 1.0,
    "\\u00b5m": 1.0, "nm": 1e-3, "nanometer": 1e-3, "mm": 1e3, "millimeter": 1e3, "cm": 1e4, "centimeter": 1e4,
    "m": 1e6, "meter": 1e6, "pm": 1e-6, "picometer": 1e-6, "Å": 1e-4, "å": 1e-4, "\\u00c5": 1e-4, "angstrom": 1e-4,
}  # fmt: skip
"""Micrometres in one unit of length, by the names that OME, OME-Zarr and ImageJ write (ImageJ escapes its µ
and Å, and is read in small letters).

Inches are left out: they come from printers' defaults, not from microscopes."""

_UNITS_S: Mapping[str, float] = {"s": 1.0, "ms": 1e-3, "min": 60.0, "h": 3600.0, "d": 86_400.0}


class OmeMismatch(ValueError):
    """The metadata does not describe the pages of this file."""

    def __init__(self, message: str, pixel_size_um: tuple[float, float] | None = None) -> None:
        super().__init__(message)
        self.pixel_size_um = pixel_size_um
        """Height and width, which hold for the pages all the same."""


@dataclass(frozen=True, slots=True)
class OmeStack:
    """What the first ``Pixels`` element says."""

    axes: str
    """``T``, ``Z`` and ``C`` in the declared order, slowest first."""
    pages: NDArray[np.int64]
    """Directory index of every page that is in this file, one array axis per letter of ``axes``."""
    missing: int
    """Planes that it describes, and that are in other files or nowhere."""
    pixel_size_um: tuple[float, float] | None
    spacing_um: float | None
    interval_s: float | None
    bits: int | None
    channel_names: tuple[str, ...]
    """Of the channels that are in this file; none where one element stands for several, as for RGB."""
    images: int
    """How many the XML describes, this one included."""


@dataclass(slots=True)
class _Reading:
    pixels: dict[str, str] | None = None
    images: int = 0
    blocks: list[dict[str, str]] = field(default_factory=list)
    channels: list[dict[str, str]] = field(default_factory=list)
    root_uuid: str | None = None
    in_uuid: bool = False
    done: bool = False

    def start(self, name: str, attributes: dict[str, str]) -> None:
        tag = name.rpartition(":")[2]
        if tag == "OME":
            self.root_uuid = attributes.get("UUID")
        elif tag == "Image":
            self.images += 1
        elif self.done:
            return
        elif tag == "Pixels" and self.pixels is None:
            self.pixels = attributes
        elif tag == "TiffData" and self.pixels is not None:
            if len(self.blocks) == MAX_PAGES:
                msg = f"the OME-XML has more than {MAX_PAGES} TiffData elements, which is the limit"
                raise OmeMismatch(msg)
            self.blocks.append(attributes)
        elif tag == "Channel" and self.pixels is not None and len(self.channels) <= MAX_CHANNELS:
            self.channels.append(attributes)
        elif tag == "UUID" and self.blocks:
            self.in_uuid = True
            self.blocks[-1]["uuid"] = ""

    def text(self, data: str) -> None:
        if self.in_uuid:
            self.blocks[-1]["uuid"] += data

    def end(self, name: str) -> None:
        tag = name.rpartition(":")[2]
        self.in_uuid = self.in_uuid and tag != "UUID"
        self.done = self.done or tag == "Pixels"


def _refuse_doctype(*_: object) -> None:
    # Without a document type there are no entities, and so none that expand a thousandfold.
    msg = "the OME-XML has a document type, which no microscope writes"
    raise OmeMismatch(msg)


def is_ome(description: str) -> bool:
    """Say whether a page's description is OME-XML."""
    return description.rstrip().endswith("OME>")


def read_ome(description: str, *, pages: int, samples: int) -> OmeStack:
    """Map the planes of the first image to the pages of this file.

    Parameters
    ----------
    description
        The OME-XML.
    pages
        Directories in the file.
    samples
        Samples per pixel of a page: an RGB page holds three of the declared channels.

    Raises
    ------
    OmeMismatch
        The XML is not well-formed, or the planes that it says are in this file are not there or make no stack.
    """
    reading = _Reading()
    parser = expat.ParserCreate()
    parser.StartElementHandler = reading.start
    parser.EndElementHandler = reading.end
    parser.CharacterDataHandler = reading.text
    parser.StartDoctypeDeclHandler = _refuse_doctype
    try:
        parser.Parse(description, True)  # noqa: FBT003 - expat takes its last argument by position only
    except expat.ExpatError as error:
        msg = f"the OME-XML is not well-formed: {error}"
        raise OmeMismatch(msg) from error
    if reading.pixels is None:
        msg = "the OME-XML describes no image of this file"
        raise OmeMismatch(msg)
    size_um: tuple[float, float] | None = None
    try:
        size_um = _pixel_size(reading.pixels)
        axes, table = _table(reading.pixels, reading.blocks, reading.root_uuid, pages=pages, samples=samples)
        there = _there(table)
        names, at = _channel_names(reading.channels), axes.index("C")
        if len(names) == table.shape[at]:
            names = tuple(names[channel] for channel in there[at])
        return OmeStack(
            axes,
            table[np.ix_(*there)],
            missing=int((table < 0).sum()),
            pixel_size_um=size_um,
            spacing_um=_positive(reading.pixels, "PhysicalSizeZ", "µm", UNITS_UM),
            interval_s=_positive(reading.pixels, "TimeIncrement", "s", _UNITS_S),
            channel_names=names,
            images=reading.images,
            bits=int(reading.pixels["SignificantBits"]) if "SignificantBits" in reading.pixels else None,
        )
    except (KeyError, ValueError) as error:
        msg = str(error) if isinstance(error, OmeMismatch) else f"the OME-XML is incomplete: {error}"
        raise OmeMismatch(msg, size_um) from error


def _table(
    pixels: Mapping[str, str], blocks: list[dict[str, str]], root_uuid: str | None, *, pages: int, samples: int
) -> tuple[str, NDArray[np.int64]]:
    """Axes, and the directory index of each plane; -1 for those that are not in this file."""
    axes = "".join(letter for letter in reversed(pixels["DimensionOrder"]) if letter in "TZC")
    sizes = {letter: int(pixels[f"Size{letter}"]) for letter in axes}
    sizes["C"] = max(1, sizes["C"] // samples)
    shape = tuple(sizes[letter] for letter in axes)
    if sorted(axes) != ["C", "T", "Z"] or min(shape) < 1 or math.prod(shape) > MAX_PAGES:
        msg = f"{axes} of {shape} planes, at most {MAX_PAGES} are read"
        raise OmeMismatch(msg)
    table = np.full(math.prod(shape), -1, dtype=np.int64)
    files = {block["uuid"].strip() for block in blocks if "uuid" in block}
    if root_uuid is None and len(files) > 1:
        msg = f"the OME-XML names {len(files)} files, and not which of them this one is"
        raise OmeMismatch(msg)
    for block in blocks or [{}]:
        if root_uuid is not None and block.get("uuid", root_uuid).strip() != root_uuid.strip():
            continue  # in another file, which is not read
        first = int(block.get("IFD", 0))
        count = int(block.get("PlaneCount", block.get("NumPlanes", 1 if "IFD" in block else pages)))
        at = int(
            np.ravel_multi_index(
                [int(block.get(f"First{letter}", 0)) // (samples if letter == "C" else 1) for letter in axes], shape
            )
        )
        count = min(count, pages - first, table.size - at)
        if first < 0 or count < 1:
            msg = f"the OME-XML points to page {first}, the file has {pages}"
            raise OmeMismatch(msg)
        table[at : at + count] = np.arange(first, first + count)
    return axes, table.reshape(shape)


def _there(table: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Indices along each axis of the planes that are in this file.

    Raises
    ------
    OmeMismatch
        They fill no stack: some of these indices have planes where others have none.
    """
    indices = [np.unique(along) for along in np.nonzero(table >= 0)]
    there = int((table >= 0).sum())
    if there == 0 or math.prod(map(len, indices)) != there:
        msg = f"the OME-XML describes {table.size} planes, the {there} of them in this file make no stack"
        raise OmeMismatch(msg)
    return indices


def _channel_names(channels: Sequence[Mapping[str, str]]) -> tuple[str, ...]:
    """What each channel is called, or by what it glows."""
    if any(channel.get("SamplesPerPixel", "1") != "1" for channel in channels):
        return ()
    return tuple(channel.get("Name") or channel.get("Fluor", "") for channel in channels)


def _pixel_size(pixels: Mapping[str, str]) -> tuple[float, float] | None:
    height, width = (_positive(pixels, f"PhysicalSize{axis}", "µm", UNITS_UM) for axis in "YX")
    return (height, width) if height is not None and width is not None else None


def _positive(pixels: Mapping[str, str], name: str, usual: str, units: Mapping[str, float]) -> float | None:
    """A quantity in the unit that all of ``units`` are given in; None where the XML has none that can be."""
    size = float(pixels.get(name, "nan")) * units.get(pixels.get(f"{name}Unit", usual), math.nan)
    return size if math.isfinite(size) and size > 0 else None
