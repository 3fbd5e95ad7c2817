"""THE CONTRACT: a bioimage.io 0.5 model package, folder or zip, written and read.

Training writes it, the service reads it, and so can anybody else's software. On reading, every hash is checked; the
golden pair is checked by :func:`model.session.self_test` once a session is open.
"""

from __future__ import annotations

import hashlib
import io
import os
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tokenize import TokenError

import numpy as np
import yaml
from numpy.typing import NDArray
from pydantic import ValidationError

from model.description import MOST_DESCRIPTION_BYTES, load_description
from model.errors import InvalidPackage, PackageError
from model.package_files import MOST_TEXT_BYTES, UNREADABLE, checked_file, open_regular, read_file
from model.rdf import from_rdf, to_rdf
from model.spec import ModelSpec, PackageFile

RDF_NAME = "rdf.yaml"
"""What a package's description is called where we write it."""
RDF_NAMES = (RDF_NAME, "bioimageio.yaml", "model.yaml")
"""What it may be called, in bioimage.io's order: the first that is there counts."""
ZOO = Path(__file__).parent / "zoo"
"""The packages that ship with the project, each in a folder of its name."""
_MOST_BELOW = 1000
_MOST_NAMED = 5


@dataclass(frozen=True, slots=True)
class Package:
    """A package on disk whose description has been read; its files are read and checked when asked for."""

    path: Path
    spec: ModelSpec

    def weights(self, precision: str = "fp32") -> bytes:
        """ONNX bytes of what runs in a precision, their hash checked."""
        variant = self.spec.variant(precision)
        return checked_file(self.path, self.spec.weights if variant is None else variant.weights)

    def golden_pair(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Test input before normalisation and test output after activation, both (1, c, y, x) float32."""
        pair = tuple(_read_tensor(self.path, file) for file in (self.spec.test_input, self.spec.test_output))
        for name, tensor, channels in zip(("input", "output"), pair, self._channel_counts(), strict=True):
            if tensor.ndim != 4 or tensor.shape[:2] != (1, channels):
                raise InvalidPackage(f"the test {name} has shape {tensor.shape}; (1, {channels}, y, x) is declared")
        expected = self.spec.geometry.output_shape((pair[0].shape[2], pair[0].shape[3]))
        if pair[1].shape[2:] != expected:
            raise InvalidPackage(f"the test output is {pair[1].shape[2:]} px; the test input's size gives {expected}")
        return pair[0], pair[1]

    def _channel_counts(self) -> tuple[int, int]:
        return len(self.spec.channels), len(self.spec.classes)

    @property
    def sha256(self) -> str:
        """Hash of the weights: what a receipt names."""
        return self.spec.weights.sha256 or hashlib.sha256(self.weights()).hexdigest()

    @property
    def variant_hashes(self) -> dict[str, str]:
        """Hash of the graph of each lower precision that has one of its own."""
        return {
            variant.precision: variant.weights.sha256 or hashlib.sha256(self.weights(variant.precision)).hexdigest()
            for variant in self.spec.variants
        }

    def check_files(self) -> None:
        """Read every file that the description names and check its hash.

        Raises
        ------
        InvalidPackage
            Where one is missing or has another hash.

        """
        for file in (*self.spec.own_files, *(variant.weights for variant in self.spec.variants)):
            checked_file(self.path, file)

    def own_files(self) -> dict[str, bytes]:
        """Content of every file that the description names, by name, but for the variants; their hashes checked.

        Raises
        ------
        InvalidPackage
            Where one is missing or has another hash.

        """
        return {file.source: checked_file(self.path, file) for file in self.spec.own_files}

    def readme(self) -> str:
        """The package's documentation, Markdown; empty where it has none."""
        if self.spec.documentation is None:
            return ""
        return checked_file(self.path, self.spec.documentation, MOST_TEXT_BYTES).decode("utf-8", errors="replace")


def read_package(path: Path) -> Package:
    """Read the description of a package.

    Parameters
    ----------
    path
        A folder that holds a description (:data:`RDF_NAMES`), or a zip that does.

    Raises
    ------
    InvalidPackage
        Where it is not a package, or contradicts itself.
    UnsupportedPackage
        Where it is one, but cannot be served here.

    """
    name = _found_description(path)
    try:
        document = load_description(read_file(path, name, MOST_DESCRIPTION_BYTES))
        return Package(path, from_rdf(document, partial(_read_tensor, path)))
    except PackageError:
        raise
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InvalidPackage(f"{path}: {where or 'the description'}: {first['msg']}") from error
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError, yaml.YAMLError) as error:
        raise InvalidPackage(f"{path}: {name} is no model description: {type(error).__name__}: {error}") from error


def description_name(folder: Path) -> str | None:
    """Name of the description in a package's folder; None where it holds none.

    Raises
    ------
    OSError
        Where the folder may not be looked into.

    """
    return next((name for name in RDF_NAMES if (folder / name).is_file()), None)


def packages_below(folder: Path) -> list[str]:
    """Names of the folders in a folder that are packages, in order; the first thousand are looked into."""
    with suppress(OSError):
        with os.scandir(folder) as found:
            names = sorted(each.name for each in found if each.is_dir())
        return [name for name in names[:_MOST_BELOW] if description_name(folder / name) is not None]
    return []


def _found_description(path: Path) -> str:
    """Name of the description in a folder or zip; where it cannot be looked for, reading it will say why."""
    try:
        if path.is_dir():
            name = description_name(path) or next((name for name in RDF_NAMES if os.path.lexists(path / name)), None)
            if name is None:
                raise _no_package(path, "is a folder without any of them", _nearby(path))
            return name
        if not path.exists():
            raise _no_package(path, "is not there")
        with open_regular(path) as stream:
            if path.suffix.lower() != ".zip" and not zipfile.is_zipfile(stream):
                raise _no_package(path, "is a file, and no zip", _nearby(path))
            with zipfile.ZipFile(stream) as archive:
                names = archive.namelist()
    except UNREADABLE:
        return RDF_NAME
    if (name := next((name for name in RDF_NAMES if name in names), None)) is None:
        deeper = next((name for name in names if name.rpartition("/")[2] in RDF_NAMES), None)
        raise _no_package(
            path,
            "is a zip without any of them",
            deeper and f"its {deeper} lies too deep: zip the files beside it, not their folder",
        )
    return name


def _nearby(path: Path) -> str | None:
    """Which packages may have been meant by a path that is none."""
    with suppress(OSError):
        if description_name(path.absolute().parent):
            return f"name the folder that it lies in, {path.absolute().parent}"
    found = [name for name in packages_below(path) if name[0] != "."]  # which are drafts
    if not found:
        return None
    more = f" and {len(found) - _MOST_NAMED} more" if len(found) > _MOST_NAMED else ""
    return f"name one of those in it: {', '.join(found[:_MOST_NAMED])}{more}"


def _no_package(path: Path, what: str, meant: str | None = None) -> InvalidPackage:
    return InvalidPackage(
        f"{path} is no package, which is a folder or a zip that holds {', '.join(RDF_NAMES[:-1])} or {RDF_NAMES[-1]}: "
        f"it {what}; {meant or 'unet-train export RUN --out PACKAGE writes one from a run'}"
    )


def write_package(path: Path, spec: ModelSpec, files: Mapping[str, bytes]) -> Package:
    """Write a package: ``rdf.yaml`` and its files, their hashes filled in.

    Parameters
    ----------
    path
        A folder, made if it is not there, or the name of a ``.zip``.
    spec
        The description; hashes that it already gives are replaced.
    files
        Content of every file that the description names.

    Raises
    ------
    InvalidPackage
        Where a file that the description names is missing among ``files``.

    """
    spec = _with_hashes(spec, files)
    content = {RDF_NAME: yaml.safe_dump(to_rdf(spec), sort_keys=False, allow_unicode=True).encode(), **files}
    if path.suffix.lower() == ".zip":
        path.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in content.items():
                archive.writestr(name, data)
    else:
        path.mkdir(parents=True, exist_ok=True)
        for name, data in content.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).unlink(missing_ok=True)  # a link of that name would be written through
            (path / name).write_bytes(data)
    return Package(path, spec)


def tensor_bytes(tensor: NDArray[np.float32]) -> bytes:
    """Return a test tensor as the bytes of a ``.npy`` file."""
    buffer = io.BytesIO()
    np.save(buffer, tensor.astype(np.float32, copy=False), allow_pickle=False)
    return buffer.getvalue()


def _with_hashes(spec: ModelSpec, files: Mapping[str, bytes]) -> ModelSpec:
    def hashed(file: PackageFile) -> PackageFile:
        if file.source not in files:
            raise InvalidPackage(f"the description names {file.source!r}, which is not among {sorted(files)}")
        return PackageFile(source=file.source, sha256=hashlib.sha256(files[file.source]).hexdigest())

    return spec.model_copy(
        update={
            "weights": hashed(spec.weights),
            "test_input": hashed(spec.test_input),
            "test_output": hashed(spec.test_output),
            "documentation": None if spec.documentation is None else hashed(spec.documentation),
            "attachments": tuple(hashed(file) for file in spec.attachments),
            "variants": tuple(
                variant.model_copy(update={"weights": hashed(variant.weights)}) for variant in spec.variants
            ),
        }
    )


def _read_tensor(path: Path, file: PackageFile) -> NDArray[np.float32]:
    try:
        tensor = np.load(io.BytesIO(checked_file(path, file)), allow_pickle=False)
        return np.asarray(tensor).astype(np.float32)
    except (ValueError, EOFError, TypeError, MemoryError, ArithmeticError, SyntaxError, TokenError) as error:
        raise InvalidPackage(f"{path}: {file.source} is no numeric .npy tensor: {error}") from error
