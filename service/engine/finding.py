"""Where packages are: folders and zips under the folders of ``UNET_MODELS_DIR``, by name."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from model.errors import ModelError
from model.package import ZOO, description_name, read_package
from model.spec import ModelSpec
from service.engine.errors import NotReady, UnknownModel

_LOG = logging.getLogger("unet.engine")
_T = TypeVar("_T")


def package_folders(folders: Sequence[Path] | None) -> tuple[Path, ...]:
    """Return the folders that ``UNET_MODELS_DIR`` names; that of the packages that ship where it names none."""
    return (ZOO,) if folders is None else tuple(folders)


def find_packages(folders: Sequence[Path]) -> dict[str, Path]:
    """Package folders and zips directly under ``folders``, in their order, by name; a folder itself where it is one.

    Entries of one name in several folders are called by folder and name. Hidden ones are drafts that somebody writes,
    or what a killed export has left.
    """
    found = list(dict.fromkeys(path for folder in folders for path in _packages_in(folder)))
    names = Counter(path.name for path in found)
    return {path.name if names[path.name] == 1 else _full_name(path): path for path in found}


def _packages_in(folder: Path) -> list[Path]:
    if _is_zip(folder) or description_name(folder):
        return [folder]
    entries = sorted(entry for entry in folder.iterdir() if entry.name[0] != ".") if folder.is_dir() else []
    return [entry for entry in entries if _is_zip(entry) or _holds_package(entry)]


def _is_zip(entry: Path) -> bool:
    return entry.suffix.lower() == ".zip" and entry.is_file()


def _full_name(path: Path) -> str:
    return f"{_folder_name(path.parent)}/{path.name}"


def _folder_name(folder: Path) -> str:
    """As ``UNET_MODELS_DIR`` names it."""
    return "zoo" if folder == ZOO else str(folder)


def _holds_package(entry: Path) -> bool:
    """Whether it is a package's folder; one that may not be looked into, such as ``lost+found``, is none."""
    try:
        return description_name(entry) is not None
    except OSError as error:
        _LOG.warning("%s is left out: %s", entry.name, error)
        return False


def missing_folders(folders: Sequence[Path]) -> dict[str, str]:
    """Return what is neither a folder nor a zip, by name, with what is to be done about it."""
    remedy = "it is no folder; correct UNET_MODELS_DIR, or mount it there"
    return {str(folder): remedy for folder in folders if not (folder.is_dir() or _is_zip(folder))}


def none_in(folders: Sequence[Path]) -> str:
    """Say that no package is in these folders, and what to do."""
    found = (f"{_folder_name(folder)} {'holds none' if folder.is_dir() else 'is no folder'}" for folder in folders)
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
    hidden = () if ZOO in folders else tuple(path.name for path in _packages_in(ZOO))
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
