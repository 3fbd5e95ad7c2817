"""The packages that are served: read, checked, opened, self-tested and warmed up before anybody may ask for them."""

from __future__ import annotations

import logging
import math
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import model as model_package
from model.errors import BackendUnavailable, ModelError
from model.halo import with_measured_halo
from model.package import RDF_NAME, Package, read_package
from model.session import InferenceSession, SessionOptions, open_session, self_test
from model.tiling import plan_tiles
from service.engine.admission import Throughput
from service.engine.errors import NotReady, UnknownModel

_LOG = logging.getLogger("unet.engine")
_WARM_UP_SIZE_YX = (384, 384)
# beyond this no backend gained anything: larger tiles leave the caches
_MOST_TILE_PIXELS = 1300 * 1300

ZOO = Path(model_package.__file__).parent / "zoo"
"""The packages that ship with the project."""


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A package that is served."""

    package: Package
    session: InferenceSession
    sha256: str
    max_tile_pixels: int
    """Most input pixels of one tile within the memory budget."""
    throughput: Throughput
    self_test_difference: float
    """Largest difference from the golden output on this machine."""


@dataclass(frozen=True, slots=True)
class Registry:
    """What is served, and what was refused for which reason."""

    models: tuple[LoadedModel, ...]
    refused: Mapping[str, str]
    default: LoadedModel | None
    problem: str | None
    """Why there is no default model, where there is none."""

    def get(self, reference: str | None) -> LoadedModel:
        """Return the package called ``name`` (its highest version) or ``name@version``; the default for None.

        Raises
        ------
        NotReady
            Where there is no default.
        UnknownModel
            Where there is no such package.

        """
        if reference is None:
            if self.default is None:
                raise NotReady(self.problem or "no model package is served")
            return self.default
        for candidate in self.models:
            if reference in (candidate.package.spec.name, candidate.package.spec.reference):
                return candidate
        raise UnknownModel(reference, tuple(entry.package.spec.reference for entry in self.models))


def find_packages(folder: Path) -> list[Path]:
    """Package folders and zips directly under ``folder``, by name; ``folder`` itself where it is a package."""
    if (folder / RDF_NAME).is_file():
        return [folder]
    entries = sorted(folder.iterdir()) if folder.is_dir() else []
    return [entry for entry in entries if entry.suffix == ".zip" or (entry / RDF_NAME).is_file()]


def load_registry(
    folder: Path | None, default: str | None, options: SessionOptions, tile_memory_bytes: int
) -> Registry:
    """Load every package of a folder; takes seconds, so call it in a thread.

    Parameters
    ----------
    folder
        Where packages are; None for those that ship.
    default
        ``name`` or ``name@version`` of the package that serves requests naming none; None takes the only one, or the
        first by name.
    options
        The same for every session.
    tile_memory_bytes
        Most memory of one batch of tiles.

    """
    source = folder or ZOO
    loaded: list[LoadedModel] = []
    refused: dict[str, str] = {}
    for path in find_packages(source):
        try:
            entry = load_model(path, options, tile_memory_bytes)
            if any(other.package.spec.reference == entry.package.spec.reference for other in loaded):
                refused[path.name] = f"{entry.package.spec.reference} is served from another folder already"
            else:
                loaded.append(entry)
        except ModelError as error:
            kind = "backend" if isinstance(error, BackendUnavailable) else "package"
            _LOG.error("%s %s is not served: %s", kind, path.name, error)
            refused[path.name] = str(error)
        except Exception as error:
            # one package, however odd, must not keep the others from being served
            _LOG.exception("package %s is not served", path.name)
            refused[path.name] = f"it cannot be loaded: {type(error).__name__}: {error}"
    loaded.sort(key=lambda entry: _version_key(entry.package.spec.version), reverse=True)
    loaded.sort(key=lambda entry: entry.package.spec.name)
    models = tuple(loaded)
    registry = Registry(models, refused, models[0] if models else None, None)
    if models and default is not None:
        try:
            registry = Registry(models, refused, registry.get(default), None)
        except UnknownModel as error:
            registry = Registry(models, refused, None, f"the default model: {error}")
    elif not models:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in refused.items()) or f"{source} holds none"
        registry = Registry((), refused, None, f"no model package is served: {reasons}")
    return registry


def load_model(path: Path, options: SessionOptions, tile_memory_bytes: int) -> LoadedModel:
    """Read, check, open, self-test and warm up one package.

    Raises
    ------
    ModelError
        Where it cannot be served.

    """
    package = read_package(path)
    package.check_files()
    session = open_session(package, options)
    difference = self_test(session, package)
    package = with_measured_halo(session, package)
    pixels = min(_MOST_TILE_PIXELS, tile_memory_bytes // package.spec.activation_bytes_per_pixel)
    throughput = Throughput(_warm_up(session, package, pixels))
    _LOG.info(
        "serving %s on %s: self-test within %.2g, %.2f Mpx/s",
        package.spec.reference,
        session.provider,
        difference,
        throughput.pixels_per_second / 1e6,
    )
    return LoadedModel(package, session, package.sha256, pixels, throughput, difference)


def _warm_up(session: InferenceSession, package: Package, max_tile_pixels: int) -> float:
    """Run a tile twice; the second run's speed in input pixels per second is the first estimate."""
    plan = plan_tiles(_WARM_UP_SIZE_YX, package.spec.geometry, max_tile_pixels)
    shape = (1, len(package.spec.channels), *plan.input_yx)
    noise = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    session.run(noise)
    started = time.perf_counter()
    session.run(noise)
    return math.prod(plan.input_yx) / max(1e-6, time.perf_counter() - started)


def _version_key(version: str) -> tuple[tuple[int, ...], bool, tuple[tuple[int, str], ...]]:
    """Order versions by their numbers, 1.10 after 1.9, and a pre-release (1.10.0-rc1) before its release."""
    numbers = re.match(r"[\d.]*", version)
    core = numbers.group() if numbers else ""
    pre = version[len(core) :].partition("+")[0]
    parts = tuple((int(p), "") if p.isdigit() else (0, p) for p in re.findall(r"\d+|[A-Za-z]+", pre))
    return tuple(int(p) for p in core.split(".") if p), not pre, parts
