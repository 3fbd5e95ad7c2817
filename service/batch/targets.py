"""What results are called: a format, a file for each image, and no two images for one file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TypeAlias

from service.batch.images import Image
from service.formats import ENCODERS

_FORMAT_OF_SUFFIX = {encoder.extension: name for name, encoder in reversed(list(ENCODERS.items()))} | {".tiff": "tiff"}
_OWN_ENDINGS = {name: encoder.ending_in_folders for name, encoder in ENCODERS.items() if encoder.ending_in_folders}
_MadeAs: TypeAlias = Callable[[Image, Path], "str | None"]


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


def is_file_name(images: Sequence[Image], out: Path) -> bool:
    """Whether ``out`` is the name of one result, not of a folder of results."""
    return len(images) == 1 and bool(out.suffix) and not out.is_dir()


def choose_format(images: Sequence[Image], out: Path, output: str, asked: str | None) -> str:
    """Format of the results: as asked, else by the suffix of a single result file, else PNG or, for floats, TIFF.

    Raises
    ------
    BadTarget
        Where the result file has the suffix of another format, or one of none while no format is asked for.

    """
    if not is_file_name(images, out):
        return asked or ("tiff" if output == "probabilities" else "png")
    by_suffix = _FORMAT_OF_SUFFIX.get(out.suffix.lower())
    if asked is None:
        if by_suffix is None:
            known = ", ".join(sorted(_FORMAT_OF_SUFFIX))
            raise BadTarget(f"{str(out)!r} ends in no suffix of a format; use one of {known}, or give --format")
        return by_suffix
    if asked in ENCODERS and by_suffix is not None and ENCODERS[asked].extension != ENCODERS[by_suffix].extension:
        fitting = ENCODERS[asked].extension
        raise BadTarget(f"{str(out)!r} is a name for {by_suffix}, the format asked for is {asked}; name it {fitting}")
    return asked


def plan(
    images: Sequence[Image],
    out: Path,
    output: str,
    format_name: str,
    made_as: _MadeAs = lambda _image, _target: None,
) -> list[Work]:
    """Say where results go: ``out`` itself for one image where it has a suffix, else ``out/<stem>_<output>.<ext>``.

    Folders below the one that was named are kept. Images of one folder that share a stem keep their suffix in the
    result's name, so that none replaces another: ``a.tif`` and ``a.png`` become ``a_tif_mask.png``, ``a_png_mask.png``.
    One that had a result before the other came keeps its name. COCO has an ending of its own, ``.coco.json``, but for
    images whose result had its name before.

    Parameters
    ----------
    images
        In any order.
    out
        A folder, or the name of one result.
    output, format_name
        What is made.
    made_as
        In which format a result of this name was made from this image; None where it was not.

    Raises
    ------
    BadTarget
        Where two images would still have one result, or a result would replace an image, or one of COCO under an older
        name.

    """
    if is_file_name(images, out):
        work = [Work(images[0], out)]
    else:
        work = _in_folder(images, out, output, format_name, made_as)
    sources = {_real(image.path) for image in images}
    for item in work:
        if _real(item.target) in sources:
            raise BadTarget(f"the result {str(item.target)!r} would replace an image; choose another -o")
    return work


def _in_folder(images: Sequence[Image], out: Path, output: str, format_name: str, made_as: _MadeAs) -> list[Work]:
    stems = Counter(image.name.with_suffix("") for image in images)
    extension = ENCODERS[format_name].extension
    ending = f"_{output}{_OWN_ENDINGS.get(format_name, extension)}"
    planned: dict[Path, Work] = {}

    def named(image: Image, ending: str) -> tuple[Path, str | None]:
        name = image.name
        target = out / name.parent / (name.stem + ending)
        was = made_as(image, target)
        if stems[name.with_suffix("")] > 1 and was is None:
            target = target.with_name(name.name.replace(".", "_") + ending)
            was = made_as(image, target)
        return target, was

    for image in images:
        target, was = named(image, ending)
        if format_name in _OWN_ENDINGS:
            older = named(image, f"_{output}{extension}")
            if older[1] == format_name:
                target, was = older
        if was and was != format_name and was in _OWN_ENDINGS:
            raise BadTarget(f"{str(target)!r} was made as {was}, the format asked for is {format_name}; use another -o")
        if target in planned:
            other = planned[target].source
            raise BadTarget(
                f"{str(other)!r} and {str(image.path)!r} would both become {str(target)!r}; rename one of them, or "
                "name the folder above both with a pattern, such as 'plates/**/*.tif', which keeps the folders below it"
            )
        planned[target] = Work(image, target)
    return list(planned.values())


def _real(path: Path) -> Path:
    return _real_folder(path.parent) / path.name


@lru_cache(maxsize=4096)
def _real_folder(folder: Path) -> Path:
    # a million files lie in few folders: following links for each of them would take minutes on a network disk
    return folder.resolve()
