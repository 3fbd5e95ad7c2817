"""A package is put in its place as a whole: until it is complete and found sound, what lies there stays as it was.

A draft lies in a hidden folder beside its place, ``.NAME-xxxxxxxx.draft``, which its process holds a lock on. A killed
process leaves that folder; the next one that writes to the same place takes it away (:func:`recover`).
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path, PurePosixPath

from model.errors import PackageError
from model.locks import wait_for
from model.package import RDF_NAME, Package, read_package, write_package
from model.spec import ModelSpec
from model.swapping import put_in_place
from training.errors import ExportError

_FORMER = "former"
"""Where a draft's folder keeps what lay at its place, on systems that cannot exchange the two."""
_RANDOM = "[a-z0-9_]{8}"  # what tempfile makes of its part of a name
_PATIENCE_S = 15.0

_log = logging.getLogger(__name__)


def require_place(path: Path) -> frozenset[str]:
    """Make sure that a package may be put at a place, and return the names of the files of the one that lies there.

    Raises
    ------
    ExportError
        Where something lies there that is no package, and would be lost.

    """
    other = "name another place (--out), or take it away"
    there = _nearest(path)
    if there != path.resolve() and not there.is_dir():
        raise ExportError(f"{path} cannot be made: {there} is a file; {other}")
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return frozenset()
    zipped = path.suffix.lower() == ".zip"
    if path.is_dir() == zipped:
        found, expected = ("a folder", "a zip") if zipped else ("a file", "a folder, or a name that ends in .zip")
        raise ExportError(f"{path} is {found} already; expected {expected}: {other}")
    if path.is_dir() and not (path / RDF_NAME).exists():
        names = sorted(entry.name for entry in path.iterdir())
        raise ExportError(
            f"{path} is the folder of something else: it has no {RDF_NAME}, but {len(names)} other entries, {names[0]} "
            "the first; name a folder that is new, empty or a package (--out)"
        )
    if path.resolve() == Path.cwd():
        raise ExportError(f"{path} is the folder that the command runs in, which cannot be replaced; run it elsewhere")
    try:
        spec = read_package(path).spec
    except PackageError as error:
        raise ExportError(f"what lies at {path} is no package that can be replaced: {error}; {other}") from error
    sources = (*spec.own_files, *(variant.weights for variant in spec.variants))
    return frozenset({RDF_NAME, *(str(PurePosixPath(file.source)) for file in sources)})


@contextmanager
def drafted(path: Path, spec: ModelSpec, files: Mapping[str, bytes]) -> Iterator[Package]:
    """Write a package beside its place, to be tried; it is put there where the block ends without an error.

    It takes the place of a package as a whole: none of that one's files stays, but whatever else lies in its folder.
    What killed processes have left beside the place is taken away.

    Parameters
    ----------
    path
        A folder, or the name of a ``.zip``.
    spec, files
        As :func:`model.package.write_package` takes them.

    Raises
    ------
    ExportError
        Where something lies there that is no package.
    InvalidPackage
        Where a file that the description names is missing among ``files``.

    """
    recover(path)
    former, place = require_place(path), path.resolve()

    def formers(folder: str, names: list[str]) -> list[str]:
        return [name for name in names if (Path(folder) / name).relative_to(place).as_posix() in former]

    with _draft_folder(place) as folder:
        new = folder / place.name
        if place.is_dir():
            shutil.copytree(place, new, symlinks=True, ignore=formers)
        yield write_package(new, spec, files)
        place.parent.mkdir(parents=True, exist_ok=True)
        if place.is_dir():
            put_in_place(new, place, folder / _FORMER)
        else:
            new.replace(place)


def recover(path: Path) -> None:
    """Take away what killed processes have left beside a package's place, and put a package back that one of them hid.

    Drafts of processes that are at work stay, and so does everything where the file system has no locks to tell.

    Parameters
    ----------
    path
        The place, whether something lies there or not.

    """
    place = path.resolve()
    parent = _nearest(place.parent)
    if not parent.is_dir():
        return
    with _locked(parent, _PATIENCE_S) as alone:
        for folder in _leftovers(parent, place) if alone else ():
            with _locked(folder, 0) as abandoned:
                if not abandoned:
                    continue
                hidden = next((hidden for hidden in _hidden(folder) if (hidden / RDF_NAME).is_file()), None)
                if hidden is not None and not place.exists():
                    hidden.rename(place)
                    _log.warning("%s: put back, which a killed process had taken away to replace it", place)
                elif hidden is not None and hidden.parent == parent:
                    shutil.rmtree(hidden)
                shutil.rmtree(folder)
        for former in _strays(parent, place) if alone and not place.exists() else ():
            former.rename(place)
            _log.warning("%s: put back, which a killed process had taken away to replace it", place)
            break


def _hidden(folder: Path) -> tuple[Path, ...]:
    """Where a draft's process has put what lay at the place: within its folder, or beside it in older versions."""
    return folder / _FORMER, folder.with_name(f"{folder.name}.old")


def _leftovers(parent: Path, place: Path) -> list[Path]:
    """Folders of drafts for a place; those of older versions, whose names say less, hold nothing but such a draft."""
    drafts = re.compile(rf"\.{re.escape(place.name)}-{_RANDOM}\.draft")
    older = re.compile(rf"\.{re.escape(place.stem)}-{_RANDOM}")
    found = []
    for entry in sorted(parent.iterdir()):
        if entry.is_symlink() or not entry.is_dir():
            continue
        holds = older.fullmatch(entry.name) and [inner.name for inner in entry.iterdir()] == [place.name]
        if holds or drafts.fullmatch(entry.name):
            found.append(entry)
    return found


def _strays(parent: Path, place: Path) -> list[Path]:
    """Packages that older versions have taken away from a place, without a draft beside them, the newest first."""
    former = re.compile(rf"\.{re.escape(place.stem)}-{_RANDOM}\.old")
    found = [entry for entry in parent.iterdir() if former.fullmatch(entry.name) and (entry / RDF_NAME).is_file()]
    return sorted(found, key=lambda entry: entry.stat().st_mtime_ns, reverse=True)


@contextmanager
def _draft_folder(place: Path) -> Iterator[Path]:
    """A hidden folder near a place, locked until it is gone."""
    parent = _nearest(place.parent)
    with ExitStack() as lock:
        with _locked(parent, _PATIENCE_S):  # nobody takes it for abandoned before it has its own lock
            folder = Path(tempfile.mkdtemp(dir=parent, prefix=f".{place.name}-", suffix=".draft"))
            lock.enter_context(_locked(folder, 0))
        try:
            yield folder
        finally:
            shutil.rmtree(folder)


@contextmanager
def _locked(folder: Path, patience_s: float) -> Iterator[bool]:
    """Hold a folder's lock during the block; whether this process got it, in so many seconds, and there are locks."""
    try:
        file = os.open(folder, os.O_RDONLY)
    except OSError:  # it is gone; or Windows, which opens no folders
        yield False
        return
    try:
        yield wait_for(file, patience_s) is True
    finally:
        os.close(file)


def _nearest(path: Path) -> Path:
    """The path, or the nearest folder above it that is there."""
    whole = path.resolve()
    return next(place for place in (whole, *whole.parents) if place.exists())
