"""What results are called: a format, a file for each image, and no two images for one file."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path, PurePosixPath

from service.batch.images import Found, Image
from service.batch.zarr_metadata import is_zarr
from service.formats import ENCODERS

OME_ZARR = "ome-zarr"
"""Format of results that are folders, which no server answers with."""

_EXTENSIONS = {name: encoder.extension for name, encoder in ENCODERS.items()} | {OME_ZARR: ".ome.zarr"}
_FORMAT_OF_SUFFIX = {Path(f"a{extension}").suffix: name for name, extension in reversed(list(_EXTENSIONS.items()))}
_FORMAT_OF_SUFFIX |= {".tiff": "tiff"}
_OWN_ENDINGS = {name: encoder.ending_in_folders for name, encoder in ENCODERS.items() if encoder.ending_in_folders}


class BadTarget(Exception):
    """Results cannot go where the command line says."""


@dataclass(frozen=True, slots=True)
class Work:
    """One image and where its result goes."""

    image: Image
    target: Path

    @property
    def source(self) -> Path:
        """The image file."""
        return self.image.path


class EarlierResults:
    """Results that a folder holds already: none, if nothing else is known."""

    def made_as(self, image: Image, target: Path) -> str | None:
        """Format that ``target`` was made in from an image of this name; None where it was not."""
        return None

    def made_from(self, image: Path, target: Path) -> bool:
        """Whether ``target`` was made from the file of this path."""
        return False


def is_file_name(found: Found, out: Path) -> bool:
    """Whether ``out`` is the name of one result, not of a folder of results.

    It is where it has the suffix of a format, and one image is named: a folder or a list may hold more tomorrow.
    """
    one = len(found.images) == 1 and not found.nowhere and found.images[0].by == "pattern"
    return one and out.suffix.lower() in _FORMAT_OF_SUFFIX and (not out.is_dir() or is_zarr(out))


def choose_format(out: Path, output: str, asked: str | None, *, single: bool) -> str:
    """Format of the results: as asked, else by the suffix of a ``single`` result file, else PNG or, for floats, TIFF.

    Raises
    ------
    BadTarget
        Where the result file has the suffix of another format.

    """
    if not single:
        return asked or ("tiff" if output == "probabilities" else "png")
    by_suffix = _FORMAT_OF_SUFFIX[out.suffix.lower()]
    if asked is None:
        return by_suffix
    fitting = _EXTENSIONS.get(asked, _EXTENSIONS[by_suffix])
    if fitting != _EXTENSIONS[by_suffix]:
        raise BadTarget(f"{str(out)!r} is a name for {by_suffix}, the format asked for is {asked}; name it {fitting}")
    return asked


def plan(
    images: Sequence[Image],
    out: Path,
    output: str,
    format_name: str,
    earlier: EarlierResults | None = None,
    *,
    single: bool = False,
) -> list[Work]:
    """Say where results go: ``out`` itself for a ``single`` one, else ``out/<stem>_<output>.<ext>``.

    Folders below the one that was named are kept. Images of one folder that share a stem keep their suffix in the
    result's name, so that none replaces another: ``a.tif`` and ``a.png`` become ``a_tif_mask.png``, ``a_png_mask.png``.
    One that had a result before the other came, or went, keeps its name, and so does an image of a list whose files
    shared another folder then. COCO has an ending of its own, ``.coco.json``, but for images whose result had its name
    before.

    Parameters
    ----------
    images
        In any order.
    out
        A folder, or the name of one result.
    output, format_name
        What is made.
    earlier
        Results that ``out`` holds already.
    single
        Whether ``out`` names the one result.

    Raises
    ------
    BadTarget
        Where two images would still have one result, or a result would replace an image, or one of COCO under an older
        name.

    """
    known = earlier or EarlierResults()
    work = [Work(images[0], out)] if single else _in_folder(images, out, output, format_name, known)
    sources = {_real(image.path) for image in images}
    for item in work:
        if _real(item.target) in sources:
            raise BadTarget(f"the result {str(item.target)!r} would replace an image; choose another -o")
    return work


def _in_folder(
    images: Sequence[Image], out: Path, output: str, format_name: str, earlier: EarlierResults
) -> list[Work]:
    extension = _EXTENSIONS[format_name]
    ending, older_ending = f"_{output}{_OWN_ENDINGS.get(format_name, extension)}", f"_{output}{extension}"

    def kept(image: Image) -> Image:
        """Name an image of a list as where it has a result already: one more line may change what all files share."""
        for name in _tails(image):
            places = (place for end in {ending, older_ending} for place in _places(name, out, end))
            if any(earlier.made_from(image.path, place) for place in places):
                return replace(image, name=name)
        return image

    images = [kept(image) if image.by == "list" else image for image in images]
    stems = Counter(image.name.with_suffix("") for image in images)
    planned: dict[Path, Work] = {}

    def named(image: Image, ending: str) -> tuple[Path, str | None]:
        for target in _places(image.name, out, ending):
            if (was := earlier.made_as(image, target)) is not None:
                return target, was
        short, long = _places(image.name, out, ending)
        return (long if stems[image.name.with_suffix("")] > 1 else short), None

    for image in images:
        target, was = named(image, ending)
        if older_ending != ending:
            older = named(image, older_ending)
            if older[1] == format_name:
                target, was = older
        if was and was != format_name and was in _OWN_ENDINGS:
            raise BadTarget(f"{str(target)!r} was made as {was}, the format asked for is {format_name}; use another -o")
        if target in planned:
            raise _both(planned[target].source, image.path, target)
        planned[target] = Work(image, target)
    return list(planned.values())


def check_case(work: Sequence[Work], folder: Path) -> None:
    """Make sure that no two results differ in upper and lower case alone, where the file system ignores that.

    Parameters
    ----------
    work
        What is to be done.
    folder
        One that is there, in the folder of results.

    Raises
    ------
    BadTarget
        Where two do, as those of ``A01.tif`` and ``a01.tif``, which lie on a disk of Linux, on a share of Windows.

    """
    try:
        if not folder.with_name(folder.name.swapcase()).samefile(folder):
            return
    except OSError:
        return
    seen: dict[str, Work] = {}
    for item in work:
        other = seen.setdefault(str(item.target).casefold(), item)
        if other is not item:
            raise _both(other.source, item.source, item.target)


def _both(one: Path, other: Path, target: Path) -> BadTarget:
    return BadTarget(
        f"{str(one)!r} and {str(other)!r} would both become {str(target)!r}; rename one of them, or name the folder "
        "above both with a pattern, such as 'plates/**/*.tif', which keeps the folders below it"
    )


def _places(name: PurePosixPath, out: Path, ending: str) -> tuple[Path, Path]:
    """Where the result of an image of this name goes: with its stem, and with its suffix, too."""
    folder = out / name.parent
    return folder / (name.stem + ending), folder / (name.name.replace(".", "_") + ending)


def _tails(image: Image) -> Iterator[PurePosixPath]:
    """Names that an image of a list may have: the one it has now, then from its file's name to its whole path."""
    yield image.name
    parts = PurePosixPath(Path(os.path.normpath(image.path)).as_posix()).parts
    yield from (PurePosixPath(*parts[first:]) for first in range(len(parts) - 1, 0, -1))


def _real(path: Path) -> Path:
    return _real_folder(path.parent) / path.name


@lru_cache(maxsize=4096)
def _real_folder(folder: Path) -> Path:
    # a million files lie in few folders: following links for each of them would take minutes on a network disk
    return folder.resolve()
