"""Where packages are: folders and zips under the folders of ``UNET_MODELS_DIR``, by name."""

from __future__ import annotations

import logging
import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeAlias, TypeVar

from model.errors import ModelError
from model.package import ZOO, description_name, packages_below, read_package
from model.spec import ModelSpec
from service.engine.errors import NotReady, UnknownModel

_LOG = logging.getLogger("unet.engine")
_T = TypeVar("_T")
_MOST_BELOW = 1000

Fingerprint: TypeAlias = tuple[tuple[str, int, int, int, int], ...]
"""Name, size in bytes, times of last writing and last change in ns, and inode of each file of a package."""


def package_folders(folders: Sequence[Path] | None) -> tuple[Path, ...]:
    """Return the folders that ``UNET_MODELS_DIR`` names; that of the packages that ship where it names none."""
    return (ZOO,) if folders is None else tuple(folders)


def find_packages(folders: Sequence[Path]) -> dict[str, Path]:
    """Package folders and zips directly under ``folders``, in their order, by name; a folder itself where it is one.

    Entries of one name in several folders are called by folder and name. Hidden ones are drafts that somebody writes,
    or what a killed export has left. Of a folder that may not be looked into there are none, which
    :func:`missing_folders` tells.
    """
    found: dict[Path, None] = {}
    for folder in folders:
        with suppress(OSError):
            found |= dict.fromkeys(packages_in(folder))
    return {name: path for path, name in package_names(found).items()}


def package_names(paths: Collection[Path]) -> dict[Path, str]:
    """What packages at these places are called: by name alone, or by folder and name where one comes twice."""
    names = Counter(path.name for path in paths)
    return {path: path.name if names[path.name] == 1 else _full_name(path) for path in paths}


def packages_in(folder: Path, warn: Callable[[str], None] = _LOG.warning) -> list[Path]:
    """Package folders and zips directly under a folder, by name; the folder itself where it is one.

    Parameters
    ----------
    folder
        One that ``UNET_MODELS_DIR`` names; none is found where it is not there.
    warn
        Told of what may not be looked into, such as ``lost+found``.

    Raises
    ------
    OSError
        Where the folder itself may not.

    """
    if _is_zip(folder) or description_name(folder):
        return [folder]
    entries = sorted(entry for entry in folder.iterdir() if entry.name[0] != ".") if folder.is_dir() else []
    return [entry for entry in entries if _is_zip(entry) or _holds_package(entry, warn)]


def fingerprint(path: Path) -> Fingerprint:
    """Tell the files of a package from others at the same place, without opening one.

    Of its subfolders, which may hold anything, the first thousand files in order count, hidden folders left out.
    """
    marks: list[tuple[str, int, int, int, int]] = []
    below = 0
    for folder, folders, names in os.walk(path):
        folders[:] = sorted(name for name in folders if name[0] != ".")
        place = Path(folder)
        counted = names if place == path else sorted(names)[: _MOST_BELOW - below]
        below += 0 if place == path else len(counted)
        if below == _MOST_BELOW:
            folders.clear()
        inner = place.relative_to(path)
        for name in counted:
            marks += _marks(str(inner / name), place / name)
    # a zip; or a folder that may not be looked into, whose own change is all that can be seen
    return tuple(sorted(marks)) or _marks("", path)


def _marks(name: str, file: Path) -> Fingerprint:
    try:
        status = file.stat()
    except OSError:  # it went meanwhile, or is a link to nowhere
        return ()
    return ((name, status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino),)


def twins_among(references: Mapping[str, str]) -> dict[str, str]:
    """Return which packages are not served, and why: the first of a name and version is.

    Parameters
    ----------
    references
        Name and version by the package's own name (:func:`package_names`), in the order in which they are served.

    """
    first: dict[str, str] = {}
    for name, reference in references.items():
        first.setdefault(reference, name)
    return {
        name: f"{reference} is served from {first[reference]} already"
        for name, reference in references.items()
        if first[reference] != name
    }


def is_gone(path: Path) -> bool:
    """Whether nothing is at this place; what may not be looked into is still there."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False


def _is_zip(entry: Path) -> bool:
    return entry.suffix.lower() == ".zip" and entry.is_file()


def _full_name(path: Path) -> str:
    return f"{_folder_name(path.parent)}/{path.name}"


def _folder_name(folder: Path) -> str:
    """As ``UNET_MODELS_DIR`` names it."""
    return "zoo" if folder == ZOO else str(folder)


def _holds_package(entry: Path, warn: Callable[[str], None]) -> bool:
    """Whether it is a package's folder; one that may not be looked into is none."""
    try:
        if description_name(entry) is None:
            return False
    except OSError as error:
        warn(f"{entry.name} is left out: {error}")
        return False
    for inner in packages_below(entry):
        warn(f"{entry.name} holds another package, {inner}, which is not served: move it to where {entry.name} is")
    return True


def missing_folders(folders: Sequence[Path]) -> dict[str, str]:
    """Return what is neither a folder nor a zip, or may not be looked into, by name, with what is to be done about it.

    It looks itself: what could not be read a moment ago may be there again.
    """
    found = {str(folder): _trouble(folder) for folder in folders}
    return {name: f"it {'; '.join(trouble)}" for name, trouble in found.items() if trouble is not None}


def _trouble(folder: Path) -> tuple[str, str] | None:
    """What is wrong with a folder, and what to do."""
    try:
        packages_in(folder, lambda _: None)
        there = folder.is_dir() or _is_zip(folder)
    except OSError as error:  # it is another user's, or a network's volume that does not answer
        return f"cannot be looked into: {error}", f"let user {os.geteuid()} read it, or take it out of UNET_MODELS_DIR"
    return None if there else ("is no folder", "correct UNET_MODELS_DIR, or mount it there")


def none_in(folders: Sequence[Path]) -> str:
    """Say that no package is in these folders, and what to do."""
    found = (f"{_folder_name(each)} {(_trouble(each) or ('holds none',))[0]}" for each in folders)
    return f"{', '.join(found)}; point UNET_MODELS_DIR to a folder that holds one, or to zoo, the packages that ship"


def locate_package(folders: Sequence[Path] | None, reference: str | None) -> Path:
    """Path of the package that a registry of the same folders would return for ``reference``; nothing is opened.

    Raises
    ------
    NotReady, UnknownModel
        As for :meth:`Registry.get`.

    """
    sources = package_folders(folders)
    found: list[tuple[ModelSpec, Path]] = []
    for name, path in find_packages(sources).items():
        try:
            found.append((read_package(path).spec, path))
        except ModelError as error:
            _LOG.warning("package %s is left out: %s", name, error)
    found = by_name(found, lambda pair: pair[0])
    for spec, path in found:
        if reference in (None, spec.name, spec.reference):
            return path
    if reference is None:
        raise NotReady(f"no model package is served: {none_in(sources)}")
    raise unknown_model(reference, [spec for spec, _ in found], sources)


def unknown_model(reference: str, served: Sequence[ModelSpec], folders: Sequence[Path]) -> UnknownModel:
    """Return the error for what is not served: with what is, and how to have it where it ships."""
    hidden = () if ZOO in folders else tuple(path.name for path in packages_in(ZOO))
    name = reference.partition("@")[0]
    remedy = f"{name} ships with the software: add zoo to UNET_MODELS_DIR" if name in hidden else ""
    return UnknownModel(reference, tuple(spec.reference for spec in served), remedy)


def by_name(found: Iterable[_T], spec_of: Callable[[_T], ModelSpec]) -> list[_T]:
    """Sort packages by name, the highest version first."""
    newest_first = sorted(found, key=lambda each: _version_key(spec_of(each).version), reverse=True)
    return sorted(newest_first, key=lambda each: spec_of(each).name)


def _version_key(version: str) -> tuple[tuple[int, ...], bool, tuple[tuple[int, str], ...]]:
    """Order versions by their numbers, 1.10 after 1.9, and a pre-release (1.10.0-rc1) before its release."""
    numbers = re.match(r"[\d.]*", version)
    core = numbers.group() if numbers else ""
    pre = version[len(core) :].partition("+")[0]
    parts = tuple((int(p), "") if p.isdigit() else (0, p) for p in re.findall(r"\d+|[A-Za-z]+", pre))
    return tuple(int(p) for p in core.split(".") if p), not pre, parts
