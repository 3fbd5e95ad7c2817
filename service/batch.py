"""Many image files through one segmenter: which files, what their results are called, and going on after a failure."""

from __future__ import annotations

import asyncio
import contextlib
import glob
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from service.client import Client, ServiceProblem, ServiceUnreachable
from service.engine.engine import Engine
from service.engine.request import SegmentRequest
from service.errors import ERROR_TREES
from service.formats import ENCODERS
from service.settings import Settings
from service.telemetry import Metrics

_IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".npy"})
_RESULT_ENDINGS = ("_mask", "_labels", "_probabilities")
_FORMAT_OF_SUFFIX = {encoder.extension: name for name, encoder in reversed(list(ENCODERS.items()))} | {".tiff": "tiff"}

Segmenter = Callable[[Path], bytes]
"""Gives the encoded result for one image file."""


class NoImages(Exception):
    """Nothing matches what was named on the command line."""


class BadTarget(Exception):
    """The result file named on the command line does not go with the format."""


@dataclass(frozen=True, slots=True)
class Work:
    """One image and where its result goes."""

    source: Path
    target: Path


def find_images(named: Sequence[str]) -> list[Path]:
    """Files for files, folders (their images, sorted, without earlier results) and glob patterns, each once.

    Raises
    ------
    NoImages
        Where one of them leads to no image.

    """
    found: dict[Path, None] = {}
    for name in named:
        path = Path(name)
        if path.is_dir():
            images = sorted(entry for entry in path.iterdir() if _is_input(entry))
        elif path.exists():
            images = [path]
        else:
            images = [Path(match) for match in sorted(glob.glob(name, recursive=True))]  # noqa: PTH207 - absolute too
        if not images:
            raise NoImages(f"{name!r} leads to no image; name files, folders of TIFF, PNG, JPEG or .npy, or a pattern")
        found |= dict.fromkeys(images)
    return list(found)


def _is_input(entry: Path) -> bool:
    return entry.is_file() and entry.suffix.lower() in _IMAGE_SUFFIXES and not entry.stem.endswith(_RESULT_ENDINGS)


def choose_format(images: Sequence[Path], out: Path, output: str, asked: str | None) -> str:
    """Format of the results: as asked, else by the suffix of a single result file, else PNG or, for floats, TIFF.

    Raises
    ------
    BadTarget
        Where the result file has the suffix of another format, or one of none while no format is asked for.

    """
    if not _is_file_name(images, out):
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


def _is_file_name(images: Sequence[Path], out: Path) -> bool:
    return len(images) == 1 and bool(out.suffix) and not out.is_dir()


def plan(images: Sequence[Path], out: Path, output: str, format_name: str) -> list[Work]:
    """Where each result goes: ``out`` itself for one image where it has a suffix, else ``out/<stem>_<output>.<ext>``.

    Images that share a stem keep their suffix in the result's name, so that none replaces another.
    """
    if _is_file_name(images, out):
        return [Work(images[0], out)]
    stems = Counter(image.stem for image in images)
    extension = ENCODERS[format_name].extension
    names = [image.stem if stems[image.stem] == 1 else image.name.replace(".", "_") for image in images]
    return [Work(image, out / f"{name}_{output}{extension}") for image, name in zip(images, names, strict=True)]


def run(work: Sequence[Work], segment: Segmenter) -> dict[Path, str]:
    """Segment all files, with a progress bar where there are several; returns what went wrong, by image."""
    failures: dict[Path, str] = {}
    inputs = {item.source.resolve() for item in work}
    for item in tqdm(work, unit="image", disable=len(work) < 2):
        if item.target.resolve() in inputs:
            failures[item.source] = f"the result {item.target} would replace an input; choose another -o"
            continue
        try:
            write_atomically(item.target, segment(item.source))
        except (*ERROR_TREES, ServiceProblem, ServiceUnreachable, OSError) as error:
            failures[item.source] = str(error)
    return failures


def write_atomically(target: Path, content: bytes) -> None:
    """Write a file so that it is there whole or not at all; missing folders are made."""
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        # mkstemp makes files that nobody else may read
        umask = os.umask(0)
        os.umask(umask)
        Path(name).chmod(0o666 & ~umask)
        Path(name).replace(target)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            Path(name).unlink()
        raise


@contextmanager
def in_process(settings: Settings, request: SegmentRequest) -> Iterator[Segmenter]:
    """Segment in this process, through the engine that also serves."""
    with asyncio.Runner() as runner:
        engine = Engine(settings, Metrics())
        runner.run(engine.start())

        def segment(image: Path) -> bytes:
            with image.open("rb") as file:
                return runner.run(engine.segment(file, request)).body.read()

        try:
            yield segment
        finally:
            runner.run(engine.stop())


@contextmanager
def by_server(url: str, request: SegmentRequest) -> Iterator[Segmenter]:
    """Segment on a server."""
    options: dict[str, str | float | None] = {
        "model": request.model,
        "output": request.output,
        "format": request.format,
        "threshold": request.threshold,
        "min_area": request.min_area,
        "channel": request.channel,
    }
    with Client(url) as client:
        yield lambda image: client.segment(image, **options)
