"""How the pages of a TIFF make channels and stacks: OME-XML, ImageJ's description, tifffile's, or none at all."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import tifffile
from numpy.typing import NDArray

from model.images.axes import channels_last, mismatch
from model.images.image import PIXEL_SIZE_LIMITS_UM, believed_um
from model.images.tiff_ifd import MAX_PAGES, MAX_SAMPLE_VALUE, UIC2, Directory, main_page, too_many_pages
from model.images.tiff_imagej import imagej_axes, imagej_fields, imagej_interval, imagej_spacing, imagej_um, positive
from model.images.tiff_ome import OmeMismatch, is_ome, read_ome
from model.images.tiff_shaped import shaped_array, shaped_axes

RESOLUTION_UNITS_UM: Mapping[int, float] = {2: 25_400.0, 3: 10_000.0}  # inch, centimetre


@dataclass(frozen=True, slots=True)
class PageFacts:
    """What the main page says beside its pixels."""

    description: str
    shape: tuple[int, ...]
    """Of one page, as tifffile gives it: YX, YXS or SYX."""
    size_yx: tuple[int, int]
    samples: int
    planar: bool
    """The samples of a page stand in images of their own, one behind the other."""
    is_rgb: bool
    """The samples are declared colours."""
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
    """Page by (plane, channel page): index of the directory, or where samples are pages that times samples + sample."""
    stored: tuple[str, NDArray[np.int64]]
    """Axes and directory indices in the order of the file."""
    virtual: bool
    """There is one directory, and the planes follow its pixels without gaps (ImageJ beyond 4 GB, MetaMorph)."""
    pixel_size_um: tuple[float, float] | None
    spacing_um: float | None
    interval_s: float | None
    bits: int | None
    notes: tuple[str, ...]
    samples_are_pages: bool = False
    """Each sample of a planar page is a page of its own, along an axis of the stack or that of channels."""
    channel_names: tuple[str, ...] = ()
    """Of all channels, or none."""


def arrange(directories: Sequence[Directory], facts: PageFacts, asked: str | None = None) -> Stack:
    """Arrange the pages as the caller asks, or by the file alone.

    tifffile declares arrays of three or four images colours; what the caller or its own description says of their axis
    goes before that.

    Raises
    ------
    AxesMismatch
        Where ``asked`` are not the axes of this file.
    UndecodableImage
        More planes behind one directory than a file may have.
    """
    found = _by_the_file(directories, facts)
    if asked is not None:
        return _as_asked(found, facts, asked)
    shaped = shaped_array(facts.description, facts.shape) if facts.planar else None
    if shaped is None:
        return found
    _, axes = shaped
    if axes is None and facts.is_rgb:
        note = (
            f"the {facts.samples} images of a page read as colours, which tifffile makes of such arrays; where they "
            "are channels or slices send axes=CYX or ZYX, or write them with photometric='minisblack'"
        )
        return replace(found, notes=(*found.notes, note))
    letter = "S" if axes is None else axes[-3]
    return found if letter == "S" or letter in found.axes else _samples_apart(found, facts, letter)


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
            size = error.pixel_size_um or size
    named: tuple[str, tuple[int, ...]] | None = None
    fields: dict[str, str] = {}
    if facts.description.startswith("ImageJ="):
        fields = imagej_fields(facts.description)
        named, size = imagej_axes(fields), imagej_um(fields, facts.resolution_xy)
    elif facts.description.startswith("{"):
        named = shaped_axes(facts.description, facts.shape)
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
        raise OmeMismatch(msg, ome.pixel_size_um)
    notes = []
    if ome.missing:
        notes.append(f"{ome.missing} of the planes that the OME-XML describes are in other files, or missing: left out")
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


def _long_axes(found: Stack) -> tuple[str, NDArray[np.int64]]:
    """Axes longer than 1 and pages in the order of the file."""
    axes, pages = found.stored
    kept = [i for i, length in enumerate(pages.shape) if length > 1]
    return "".join(axes[i] for i in kept), pages.reshape([pages.shape[i] for i in kept])


def _samples_apart(found: Stack, facts: PageFacts, letter: str) -> Stack:
    """Make the samples of planar pages one more axis of the stack, with nothing left of colours and alpha."""
    axes, pages = _long_axes(found)
    if pages.size * facts.samples > MAX_PAGES:
        raise too_many_pages()
    again = _stack(
        axes + letter,
        pages[..., np.newaxis] * facts.samples + np.arange(facts.samples),
        virtual=found.virtual,
        size=found.pixel_size_um,
        bits=found.bits,
        notes=found.notes,
    )
    return replace(
        again,
        samples_are_pages=True,
        spacing_um=found.spacing_um,
        interval_s=found.interval_s,
        channel_names=found.channel_names if letter == "C" else (),
    )


def _as_asked(found: Stack, facts: PageFacts, asked: str) -> Stack:
    """Give other names to the axes of a file; what it says of slices, frames and channels is then not believed."""
    own, pages = _long_axes(found)
    page: tuple[str, ...] = ("YX",)
    size: tuple[int, ...] = facts.size_yx
    if facts.planar:
        page, size = ("CYX", "YXC", "ZYX", "TYX", "IYX"), (facts.samples, *facts.size_yx)
    elif facts.samples > 1:
        # colours of one pixel stand together, whatever they are called
        page, size = ("YXC", "CYX"), (*facts.size_yx, facts.samples)
    lead = next((asked.removesuffix(end) for end in page if asked.endswith(end)), None)
    if lead is None or len(lead) != pages.ndim:
        raise mismatch(asked, own + page[0], (*pages.shape, *size))
    samples = asked[len(lead)] if facts.planar else "Y"
    if lead == own and samples in "CY":
        again = found
    else:
        again = _stack(
            lead,
            pages,
            virtual=found.virtual,
            size=found.pixel_size_um,
            bits=found.bits,
            notes=[*found.notes, f"axes {asked} as asked for, in place of {own + page[0]}"],
        )
        # slices that ImageJ made of images have their titles for labels
        _, order = channels_last(lead, np.arange(pages.size).reshape(pages.shape))
        labels = tuple(facts.labels[at] for at in order.ravel()) if len(facts.labels) == pages.size else ()
        again = replace(again, channel_names=_labels_of_channels(labels, again.pages.shape))
    return again if samples == "Y" else _samples_apart(again, facts, samples)


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


def _declared_bits(first: Directory) -> int | None:
    """MaxSampleValue, where a camera software says 4095 for 12 bits in 16."""
    largest = first.numbers.get(MAX_SAMPLE_VALUE, 0)
    return largest.bit_length() if largest and (largest + 1).bit_count() == 1 else None
