"""How the pages of a TIFF make channels and stacks: OME-XML, ImageJ's description, tifffile's, or none at all."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from model.images.axes import channels_last, mismatch
from model.images.image import PIXEL_SIZE_LIMITS_UM, believed_um
from model.images.tiff_ifd import MAX_PAGES, MAX_SAMPLE_VALUE, UIC2, Directory, main_page, too_many_pages
from model.images.tiff_imagej import imagej_axes, imagej_fields, imagej_interval, imagej_spacing, imagej_um, positive
from model.images.tiff_ome import OmeMismatch, is_ome, read_ome

MAX_AXES = 64
"""Of an array, as of numpy's."""
_UNNAMED = "IJKLMNOPQRUVWAB"  # 15: MAX_PAGES are no more axes longer than 1
RESOLUTION_UNITS_UM: Mapping[int, float] = {2: 25_400.0, 3: 10_000.0}  # inch, centimetre


@dataclass(frozen=True, slots=True)
class PageFacts:
    """What the main page says beside its pixels."""

    description: str
    shape: tuple[int, ...]
    """Of one page, as tifffile gives it: YX, YXS or SYX."""
    size_yx: tuple[int, int]
    samples: int
    resolution_xy: tuple[float, float]
    """Pixels per unit."""
    resolution_unit: int
    uncompressed: bool
    labels: tuple[str, ...]
    """ImageJ's, of each page; empty where there are none."""


@dataclass(frozen=True, slots=True)
class Stack:
    """Pages, arranged."""

    axes: str
    """Stack axes, slowest first."""
    shape: tuple[int, ...]
    pages: NDArray[np.int64]
    """Directory index by (plane, channel page)."""
    stored: tuple[str, NDArray[np.int64]]
    """Axes and directory indices in the order of the file."""
    virtual: bool
    """There is one directory, and the planes follow its pixels without gaps (ImageJ beyond 4 GB, MetaMorph)."""
    pixel_size_um: tuple[float, float] | None
    spacing_um: float | None
    interval_s: float | None
    bits: int | None
    notes: tuple[str, ...]
    channel_names: tuple[str, ...] = ()
    """Of all channels, or none."""


def arrange(directories: Sequence[Directory], facts: PageFacts, asked: str | None = None) -> Stack:
    """Arrange the pages as the caller asks, or by the file alone.

    Raises
    ------
    AxesMismatch
        Where ``asked`` are not the axes of this file.
    UndecodableImage
        More planes behind one directory than a file may have.
    """
    found = _by_the_file(directories, facts)
    return found if asked is None else _as_asked(found, facts, asked)


def _by_the_file(directories: Sequence[Directory], facts: PageFacts) -> Stack:
    """Arrange the pages as the metadata says, or as one sequence where it says nothing or does not fit the file."""
    notes: list[str] = []
    main = main_page(directories)
    first = directories[main]
    ours = np.array([i for i, page in enumerate(directories) if i == main or page.continues(first)], dtype=np.int64)
    size, bits = _resolution_um(facts), _declared_bits(first)
    if is_ome(facts.description):
        try:
            return _by_ome(facts, ours, len(directories), size=size, bits=bits)
        except OmeMismatch as error:
            notes.append(f"{error}; the pages are read as they stand")
    named: tuple[str, tuple[int, ...]] | None = None
    fields: dict[str, str] = {}
    if facts.description.startswith("ImageJ="):
        fields = imagej_fields(facts.description)
        named, size = imagej_axes(fields), imagej_um(fields, facts.resolution_xy)
    elif facts.description.startswith("{"):
        named = _shaped_axes(facts)
    elif first.numbers.get(UIC2, 1) > 1:
        named = "I", (first.numbers[UIC2],)
    if named is not None:
        axes, shape = named
        count = math.prod(shape)
        virtual = len(ours) == 1 and facts.uncompressed and count > 1
        if virtual and count > MAX_PAGES:
            raise too_many_pages()
        if virtual or count <= len(ours):
            if count < len(ours):
                notes.append(f"{len(directories) - count} further pages left out: the metadata describes {count}")
            pages = np.arange(count) if virtual else ours[:count]
            found = _stack(axes, pages.reshape(shape), virtual=virtual, size=size, bits=bits, notes=notes)
            return replace(
                found,
                spacing_um=imagej_spacing(fields),
                interval_s=imagej_interval(fields),
                channel_names=_labels_of_channels(facts.labels, found.pages.shape),
            )
        described = count if count <= MAX_PAGES else f"more than {MAX_PAGES}"
        notes.append(f"the metadata describes {described} planes, the file holds {len(ours)}: read as they stand")
    if len(ours) < len(directories):
        notes.append(f"{len(directories) - len(ours)} further pages of other size or type left out")
    return _stack("I", ours, virtual=False, size=size, bits=bits, notes=notes)


def _by_ome(
    facts: PageFacts, ours: NDArray[np.int64], pages: int, *, size: tuple[float, float] | None, bits: int | None
) -> Stack:
    """Arrange the pages as the OME-XML says."""
    ome = read_ome(facts.description, pages=pages, samples=facts.samples)
    if not np.isin(ome.pages, ours).all():
        msg = "the OME-XML joins pages of different size or type"
        raise OmeMismatch(msg)
    notes = []
    if ome.images > 1:
        notes.append(
            f"{ome.images - 1} further images of the OME-XML left out: a file is read as its first image, or position; "
            "save the others as files of their own"
        )
    size, bits = ome.pixel_size_um or size, ome.bits or bits
    found = _stack(ome.axes, ome.pages, virtual=False, size=size, bits=bits, notes=notes)
    return replace(found, spacing_um=ome.spacing_um, interval_s=ome.interval_s, channel_names=ome.channel_names)


def _stack(
    axes: str,
    pages: NDArray[np.int64],
    *,
    virtual: bool,
    size: tuple[float, float] | None,
    bits: int | None,
    notes: Sequence[str] = (),
) -> Stack:
    """Move the channel axis last and drop the axes of length one, and a pixel size that nothing can have."""
    smallest, largest = PIXEL_SIZE_LIMITS_UM
    if size is not None and not all(smallest <= length <= largest for length in size):
        found = f"{size[0]:g} x {size[1]:g}"
        notes = [*notes, f"pixel size of {found} um left out: none is below {smallest:g} or above {largest:g} um"]
        size = None
    stored = axes, pages
    axes, pages = channels_last(axes, pages)
    kept = [i for i, length in enumerate(pages.shape[:-1]) if length > 1]
    return Stack(
        axes="".join(axes[i] for i in kept),
        shape=tuple(pages.shape[i] for i in kept),
        pages=pages.reshape(-1, pages.shape[-1]),
        stored=stored,
        virtual=virtual,
        pixel_size_um=size,
        spacing_um=None,
        interval_s=None,
        bits=bits,
        notes=tuple(notes),
    )


def _as_asked(found: Stack, facts: PageFacts, asked: str) -> Stack:
    """Give other names to the axes of a file; what it says of slices, frames and channels is then not believed."""
    axes, pages = found.stored
    named = [(letter, length) for letter, length in zip(axes, pages.shape, strict=True) if length > 1]
    own, shape = "".join(letter for letter, _ in named), tuple(length for _, length in named)
    # of a page of several samples: colours of one pixel stand together, or those of a page one after the other
    page = ("YXC", "CYX") if facts.samples > 1 else ("YX",)
    lead = next((asked.removesuffix(end) for end in page if asked.endswith(end)), None)
    if lead is None or len(lead) != len(shape):
        raise mismatch(asked, own + page[0], (*shape, *facts.size_yx, *([facts.samples] if facts.samples > 1 else [])))
    if lead == own:
        return found
    again = _stack(
        lead,
        pages.reshape(shape),
        virtual=found.virtual,
        size=found.pixel_size_um,
        bits=found.bits,
        notes=[*found.notes, f"axes {asked} as asked for, in place of {own + page[0]}"],
    )
    # slices that ImageJ made of images have their titles for labels
    _, order = channels_last(lead, np.arange(pages.size).reshape(shape))
    labels = tuple(facts.labels[at] for at in order.ravel()) if len(facts.labels) == pages.size else ()
    return replace(again, channel_names=_labels_of_channels(labels, again.pages.shape))


def _labels_of_channels(labels: tuple[str, ...], pages: tuple[int, ...]) -> tuple[str, ...]:
    """First lines of ImageJ's labels where they tell channels apart: one for each, the same in all of its planes."""
    planes, channels = pages
    names = labels[:channels]
    return tuple(name.partition("\n")[0] for name in names) if channels > 1 and labels == names * planes else ()


def _resolution_um(facts: PageFacts) -> tuple[float, float] | None:
    """From the resolution tags; slides of Aperio (SVS) give micrometres per pixel in their description in place."""
    if facts.description.startswith("Aperio "):
        size = positive(str(tifffile.tifffile.svs_description_metadata(facts.description).get("MPP", "")))
        if size is not None:
            return size, size
    unit = RESOLUTION_UNITS_UM.get(facts.resolution_unit)
    x, y = facts.resolution_xy
    if unit is None or not (x > 0 and y > 0):
        return None
    return believed_um(unit / y, unit / x)


def _shaped_axes(facts: PageFacts) -> tuple[str, tuple[int, ...]] | None:
    """Leading axes of tifffile's ``{"shape": [...], "axes": "..."}``, where the last ones are a page.

    Those without names are I, J, K, ..., as those of an array are.
    """
    try:
        fields: Any = json.loads(facts.description)
        shape = tuple(int(length) for length in fields["shape"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    lead = shape[: -len(facts.shape)]
    if shape[len(lead) :] != facts.shape or not 1 <= len(lead) <= MAX_AXES or min(lead) < 1:
        return None
    axes = fields.get("axes")
    if isinstance(axes, str) and len(axes) == len(shape) and len(set(axes)) == len(axes) and axes.isalpha():
        return axes[: len(lead)].upper(), lead
    long = tuple(length for length in lead if length > 1)
    return (_UNNAMED[: len(long)], long) if len(long) <= len(_UNNAMED) else ("I", (math.prod(long),))


def _declared_bits(first: Directory) -> int | None:
    """MaxSampleValue, where a camera software says 4095 for 12 bits in 16."""
    largest = first.numbers.get(MAX_SAMPLE_VALUE, 0)
    return largest.bit_length() if largest and (largest + 1).bit_count() == 1 else None
