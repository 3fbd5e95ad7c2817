"""The packages that are served: read, checked, opened, self-tested and warmed up before anybody may ask for them."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from model.agreement import Agreement
from model.devices import each_device
from model.errors import BackendUnavailable, ModelError
from model.package import RDF_NAME, ZOO, Package, read_package
from model.planner import Planner
from model.precision import open_checked
from model.session import InferenceSession, SessionOptions
from model.spec import ModelSpec
from service.engine.admission import Throughput
from service.engine.errors import NotReady, UnknownModel
from service.engine.planning import PlanLimits, make_planner

_LOG = logging.getLogger("unet.engine")
_TYPICAL_SIZE_YX = (768, 768)
_CALIBRATION_S = 1.5  # of all packages together: readiness waits for it


@dataclass(frozen=True, slots=True, eq=False)  # a key of batches: each package is loaded once, its parts do not hash
class LoadedModel:
    """A package that is served."""

    package: Package
    session: InferenceSession
    sha256: str
    variants: Mapping[str, str]
    """Hash of the graph of each lower precision that has one of its own."""
    planner: Planner
    """Cuts images into tiles, by what they cost on this machine."""
    throughput: Throughput
    self_test_difference: float
    """Largest difference of the net in fp32 from the golden output on this machine."""
    agreement: Agreement | None
    """Of the precision that runs with fp32; None where that is fp32."""


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
    """Package folders and zips directly under ``folder``, by name; ``folder`` itself where it is a package.

    Hidden ones are drafts that somebody writes, or what a killed export has left.
    """
    if (folder / RDF_NAME).is_file():
        return [folder]
    entries = sorted(entry for entry in folder.iterdir() if entry.name[0] != ".") if folder.is_dir() else []
    return [entry for entry in entries if entry.suffix.lower() == ".zip" or _holds_package(entry)]


def _holds_package(entry: Path) -> bool:
    """Whether it is a package's folder; one that may not be looked into, such as ``lost+found``, is none."""
    try:
        return (entry / RDF_NAME).is_file()
    except OSError as error:
        _LOG.warning("%s is left out: %s", entry.name, error)
        return False


def locate_package(folder: Path | None, reference: str | None) -> Path:
    """Path of the package that a registry of the same folder would return for ``reference``; nothing is opened.

    Raises
    ------
    NotReady, UnknownModel
        As for :meth:`Registry.get`.

    """
    found: list[tuple[ModelSpec, Path]] = []
    for path in find_packages(folder or ZOO):
        try:
            found.append((read_package(path).spec, path))
        except ModelError as error:
            _LOG.warning("package %s is left out: %s", path.name, error)
    found.sort(key=lambda pair: _version_key(pair[0].version), reverse=True)
    found.sort(key=lambda pair: pair[0].name)
    for spec, path in found:
        if reference in (None, spec.name, spec.reference):
            return path
    if reference is None:
        raise NotReady(f"no model package is served: {_none_in(folder or ZOO)}")
    raise UnknownModel(reference, tuple(spec.reference for spec, _ in found))


def _none_in(folder: Path) -> str:
    found = "holds none" if folder.is_dir() else "is no folder"
    return f"{folder} {found}; point UNET_MODELS_DIR to a folder that holds one"


def load_registry(folder: Path | None, default: str | None, options: SessionOptions, limits: PlanLimits) -> Registry:
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
    limits
        What plans keep within.

    """
    source = folder or ZOO
    loaded: list[LoadedModel] = []
    refused: dict[str, str] = {}
    paths = find_packages(source)
    for path in paths:
        try:
            entry = load_model(path, options, limits, _CALIBRATION_S / len(paths))
            reference = entry.package.spec.reference
            if twin := next((other.package for other in loaded if other.package.spec.reference == reference), None):
                refused[path.name] = f"{reference} is served from {twin.path.name} already"
                _LOG.warning("package %s is not served: %s", path.name, refused[path.name])
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
        reasons = "; ".join(f"{name}: {reason}" for name, reason in refused.items()) or _none_in(source)
        registry = Registry((), refused, None, f"no model package is served: {reasons}")
    if registry.problem is not None:
        _LOG.error("%s", registry.problem)
    return registry


def load_model(
    path: Path, options: SessionOptions, limits: PlanLimits, calibration_s: float = _CALIBRATION_S
) -> LoadedModel:
    """Read, check, open, self-test and warm up one package, and measure what tiles cost.

    Parameters
    ----------
    path
        The package.
    options
        How to open its net.
    limits
        What plans keep within.
    calibration_s
        Seconds that measuring should take, where no earlier start has left its figures.

    Raises
    ------
    ModelError
        Where it cannot be served.

    """
    package = read_package(path)
    package.check_files()
    opened = open_checked(package, options)
    package, session = opened.package, opened.session
    planner = make_planner(package, session, options, limits, calibration_s)
    typical = planner.expected(planner.plan(_TYPICAL_SIZE_YX))
    throughput = Throughput(len(each_device(session)) * math.prod(typical.plan.input_yx) / typical.tile_seconds)
    _LOG.info(
        "serving %s on %s in %s: self-test within %.2g, %.2f Mpx/s",
        package.spec.reference,
        session.provider,
        session.precision,
        opened.self_test_difference,
        throughput.pixels_per_second / 1e6,
    )
    return LoadedModel(
        package=package,
        session=session,
        sha256=package.sha256,
        variants=package.variant_hashes,
        planner=planner,
        throughput=throughput,
        self_test_difference=opened.self_test_difference,
        agreement=opened.agreement,
    )


def _version_key(version: str) -> tuple[tuple[int, ...], bool, tuple[tuple[int, str], ...]]:
    """Order versions by their numbers, 1.10 after 1.9, and a pre-release (1.10.0-rc1) before its release."""
    numbers = re.match(r"[\d.]*", version)
    core = numbers.group() if numbers else ""
    pre = version[len(core) :].partition("+")[0]
    parts = tuple((int(p), "") if p.isdigit() else (0, p) for p in re.findall(r"\d+|[A-Za-z]+", pre))
    return tuple(int(p) for p in core.split(".") if p), not pre, parts
