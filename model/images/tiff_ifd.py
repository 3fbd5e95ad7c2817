"""Walk the chain of image file directories of a TIFF by its integers alone, before any decoder sees the file.

TIFF 6.0 (Adobe 1992, section 2) and BigTIFF. A directory may lie anywhere, overlap others and point to itself; a few
bytes can declare millions of pages or gigabytes of tag values. What is bounded here need not be feared later.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import IO

from model.images.errors import UndecodableImage, undecodable

MAX_PAGES = 32_768
MAX_TAGS = 4_096
MAX_NUMBERS_BYTES = 16 << 20
"""Numeric tag values of one page: two million strips or tiles. Each number becomes a Python object."""

MAX_DESCRIPTION_BYTES = 32 << 20
"""OME-XML of that many pages takes half of it; what it says is parsed before anything is known of the image."""
_SHARED_BYTES = 64
"""Of a value that many directories may share, such as the bits of three samples."""

TYPE_BYTES: Mapping[int, int] = {
    1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8,
}  # fmt: skip
TEXT_TYPES = frozenset({1, 2, 7})  # BYTE, ASCII, UNDEFINED
NUMBER_FORMATS: Mapping[int, str] = {1: "B", 3: "H", 4: "I", 16: "Q"}

NEW_SUBFILE_TYPE, IMAGE_WIDTH, IMAGE_LENGTH, BITS_PER_SAMPLE = 254, 256, 257, 258
PHOTOMETRIC, IMAGE_DESCRIPTION, SAMPLES_PER_PIXEL, SAMPLE_FORMAT, ORIENTATION = 262, 270, 277, 339, 274
MAX_SAMPLE_VALUE, UIC2 = 281, 33629
_WANTED = frozenset(
    {NEW_SUBFILE_TYPE, IMAGE_WIDTH, IMAGE_LENGTH, BITS_PER_SAMPLE, PHOTOMETRIC, SAMPLES_PER_PIXEL, SAMPLE_FORMAT}
)
_WANTED_OF_MAIN = _WANTED | {ORIENTATION, MAX_SAMPLE_VALUE, UIC2}


@dataclass(frozen=True, slots=True)
class Directory:
    """One page as its directory declares it."""

    offset: int
    size_yx: tuple[int, int]
    kind: tuple[int, ...]
    """Samples per pixel, bits, sample format, photometric: with the size, what makes two pages one stack."""
    reduced: bool
    """A thumbnail, pyramid level or transparency mask of another page."""
    numbers: Mapping[int, int]
    """First value of the tags that were looked at; of tag 33629 the count."""

    def continues(self, first: Directory) -> bool:
        """Say whether this page belongs to the stack that ``first`` begins."""
        return not self.reduced and self.size_yx == first.size_yx and self.kind == first.kind


@dataclass(frozen=True, slots=True)
class _Layout:
    order: str
    count: str
    entry: str
    offset: str
    inline: int

    def unpack(self, kind: str, data: bytes) -> int:
        return int(struct.unpack(self.order + kind, data)[0])


def _layout(header: bytes) -> tuple[_Layout, int]:
    order = {b"II": "<", b"MM": ">"}[header[:2]]
    version = struct.unpack(order + "H", header[2:4])[0]
    if version == 43:
        return _Layout(order, "Q", "HHQ8s", "Q", 8), struct.unpack(order + "Q", header[8:16])[0]
    return _Layout(order, "H", "HHI4s", "I", 4), struct.unpack(order + "I", header[4:8])[0]


def walk_directories(source: IO[bytes]) -> tuple[Directory, ...]:
    """Read every directory of the main chain; the source is left at any position.

    Parameters
    ----------
    source
        Seekable, with the TIFF from position 0 on.

    Returns
    -------
    tuple
        One entry per page, in file order; at least one.

    Raises
    ------
    UndecodableImage
        No page, a loop, a directory or value beyond the end of the file, directories that overlap, or more pages,
        tags, numbers or words than any image has.
    """
    size = source.seek(0, 2)
    source.seek(0)
    with undecodable("the TIFF header"):
        layout, offset = _layout(source.read(16))
    found: list[Directory] = []
    seen: set[int] = set()
    read_bytes = 0
    wanted = _WANTED_OF_MAIN
    while offset:
        if offset in seen:
            msg = f"the chain of TIFF pages runs in a circle after page {len(found)}; write the file again"
            raise UndecodableImage(msg)
        if len(found) == MAX_PAGES:
            raise too_many_pages()
        seen.add(offset)
        with undecodable(f"the directory of TIFF page {len(found)}"):
            directory, offset, bytes_there = _read_directory(source, layout, offset, size, wanted)
            read_bytes += bytes_there
            if read_bytes > size:
                msg = f"{len(found) + 1} directories take {read_bytes} bytes, the file has {size}: they overlap"
                raise ValueError(msg)
        found.append(directory)
        if not directory.reduced:
            wanted = _WANTED
    if not found:
        msg = "the TIFF holds no page; write the file again"
        raise UndecodableImage(msg)
    return tuple(found)


def too_many_pages() -> UndecodableImage:
    """Error for more than :data:`MAX_PAGES` pages, be they of directories or behind one of them."""
    return UndecodableImage(f"the TIFF has more than {MAX_PAGES} pages, which is the limit; split the stack")


def main_page(directories: Sequence[Directory]) -> int:
    """Index of the first page that is no thumbnail, level or mask of another; 0 where all are."""
    return next((number for number, page in enumerate(directories) if not page.reduced), 0)


def _read_directory(
    source: IO[bytes], layout: _Layout, offset: int, size: int, wanted: frozenset[int]
) -> tuple[Directory, int, int]:
    """Read one directory; returns it, where the next one begins, and how many bytes this one does not share."""
    source.seek(offset)
    count_bytes = struct.calcsize("=" + layout.count)
    tags = layout.unpack(layout.count, source.read(count_bytes))
    if not 1 <= tags <= MAX_TAGS:
        msg = f"{tags} tags at byte {offset}, 1 to {MAX_TAGS} are allowed"
        raise ValueError(msg)
    entry_bytes = struct.calcsize("=" + layout.entry)
    table = source.read(tags * entry_bytes)
    following = source.read(struct.calcsize("=" + layout.offset))
    # Some writers end the file behind the last entry, without the terminating zero.
    next_offset = layout.unpack(layout.offset, following) if following else 0
    numbers: dict[int, int] = {}
    kind: dict[int, tuple[int, ...]] = {}
    number_bytes = text_bytes = 0
    own_bytes = len(table)
    for code, value_type, count, raw in struct.iter_unpack(layout.order + layout.entry, table):
        value_bytes = count * TYPE_BYTES.get(value_type, 0)
        if value_bytes > layout.inline:
            if value_type in TEXT_TYPES:
                text_bytes += value_bytes
                if code == IMAGE_DESCRIPTION and value_bytes > MAX_DESCRIPTION_BYTES:
                    msg = f"a description of {value_bytes} bytes, the limit is {MAX_DESCRIPTION_BYTES}"
                    raise ValueError(msg)
            else:
                number_bytes += value_bytes
        if code == UIC2 and code in wanted:
            numbers[code] = count  # whatever its type: of rationals, as MetaMorph writes it, values are not read
        if code not in wanted or code in numbers or value_type not in NUMBER_FORMATS or not count:
            continue
        if value_bytes > layout.inline:
            used = min(count, 4096)
            source.seek(layout.unpack(layout.offset, raw))
            raw = source.read(used * TYPE_BYTES[value_type])  # noqa: PLW2901 - the value stands where raw points
            own_bytes += max(0, len(raw) - _SHARED_BYTES)
        else:
            used = count
        values = struct.unpack_from(f"{layout.order}{used}{NUMBER_FORMATS[value_type]}", raw)
        numbers[code] = values[0]
        kind[code] = tuple(sorted(set(values)))
    if number_bytes > MAX_NUMBERS_BYTES or text_bytes > size:
        msg = f"{number_bytes} bytes of numbers and {text_bytes} of text in its tags, in a file of {size}"
        raise ValueError(f"{msg}; at most {MAX_NUMBERS_BYTES} and the size of the file are allowed")
    subfile = numbers.get(NEW_SUBFILE_TYPE, 0)
    directory = Directory(
        offset=offset,
        size_yx=(numbers.get(IMAGE_LENGTH, 0), numbers.get(IMAGE_WIDTH, 0)),
        kind=(
            numbers.get(SAMPLES_PER_PIXEL, 1),
            *kind.get(BITS_PER_SAMPLE, (1,)),
            *kind.get(SAMPLE_FORMAT, (1,)),
            numbers.get(PHOTOMETRIC, 1),
        ),
        reduced=bool(subfile & 5),  # bit 0: reduced resolution, bit 2: transparency mask
        numbers=numbers,
    )
    return directory, next_offset, own_bytes
