"""A package is put in its place as a whole: until it is complete and found sound, what lies there stays as it was."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from model.errors import PackageError
from model.package import RDF_NAME, Package, read_package, write_package
from model.spec import ModelSpec
from training.errors import ExportError


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
    former, place = require_place(path), path.resolve()

    def formers(folder: str, names: list[str]) -> list[str]:
        return [name for name in names if (Path(folder) / name).relative_to(place).as_posix() in former]

    with tempfile.TemporaryDirectory(dir=_nearest(place.parent), prefix=f".{place.stem}-") as folder:
        new = Path(folder) / place.name
        if place.is_dir():
            shutil.copytree(place, new, symlinks=True, ignore=formers)
        yield write_package(new, spec, files)
        place.parent.mkdir(parents=True, exist_ok=True)
        if not place.is_dir():
            new.replace(place)
            return
        old = place.with_name(f"{Path(folder).name}.old")  # stays where the next line is never reached
        place.rename(old)
        new.rename(place)
    shutil.rmtree(old)


def _nearest(path: Path) -> Path:
    """The path, or the nearest folder above it that is there."""
    whole = path.resolve()
    return next(place for place in (whole, *whole.parents) if place.exists())
