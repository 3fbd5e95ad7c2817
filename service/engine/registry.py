"""The packages that are served: read, checked, opened, self-tested and warmed up before anybody may ask for them."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from model.agreement import Agreement
from model.devices import each_device
from model.errors import BackendUnavailable, ModelError
from model.package import Package, read_package
from model.planner import Planner
from model.precision import open_checked
from model.session import InferenceSession, SessionOptions
from service.engine.errors import NotReady, UnknownModel
from service.engine.finding import by_name, find_packages, missing_folders, none_in, package_folders, unknown_model
from service.engine.planning import PlanLimits, make_planner
from service.engine.ticket import Throughput

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
    readme: str
    """The package's documentation as it was when the net was loaded."""


@dataclass(frozen=True, slots=True)
class Registry:
    """What is served, and what was refused for which reason."""

    models: tuple[LoadedModel, ...]
    refused: Mapping[str, str]
    default: LoadedModel | None
    problem: str | None
    """Why there is no default model, where there is none."""
    folders: tuple[Path, ...] = ()
    """Where packages were looked for."""

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
        raise unknown_model(reference, [entry.package.spec for entry in self.models], self.folders)


def load_registry(
    folders: Sequence[Path] | None, default: str | None, options: SessionOptions, limits: PlanLimits
) -> Registry:
    """Load every package of some folders; takes seconds, so call it in a thread.

    Parameters
    ----------
    folders
        Where packages are; None for those that ship.
    default
        ``name`` or ``name@version`` of the package that serves requests naming none; None takes the only one, or the
        first by name.
    options
        The same for every session.
    limits
        What plans keep within.

    """
    sources = package_folders(folders)
    loaded: list[LoadedModel] = []
    called: dict[str, str] = {}
    paths = find_packages(sources)
    refused = missing_folders(sources) if paths else {}  # else the problem says it of all
    for name, reason in refused.items():
        _LOG.warning("no package is served from %s: %s", name, reason)
    for name, path in paths.items():
        try:
            entry = load_model(path, options, limits, _CALIBRATION_S / len(paths))
            reference = entry.package.spec.reference
            if reference in called:
                refused[name] = f"{reference} is served from {called[reference]} already"
                _LOG.warning("package %s is not served: %s", name, refused[name])
            else:
                loaded.append(entry)
                called[reference] = name
        except ModelError as error:
            kind = "backend" if isinstance(error, BackendUnavailable) else "package"
            _LOG.error("%s %s is not served: %s", kind, name, error)
            refused[name] = str(error)
        except Exception as error:
            # one package, however odd, must not keep the others from being served
            _LOG.exception("package %s is not served", name)
            refused[name] = unforeseen(error)
    loaded = by_name(loaded, lambda entry: entry.package.spec)
    registry = Registry(tuple(loaded), refused, loaded[0] if loaded else None, None, sources)
    if not loaded:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in refused.items()) or none_in(sources)
        registry = replace(registry, problem=f"no model package is served: {reasons}")
    elif default is not None:
        try:
            registry = replace(registry, default=registry.get(default))
        except UnknownModel as error:
            registry = replace(registry, default=None, problem=f"the default model: {error}")
    if registry.problem is not None:
        _LOG.error("%s", registry.problem)
    return registry


def unforeseen(error: Exception) -> str:
    """Say why a package is refused that is odd in a way nobody has thought of."""
    return f"it cannot be loaded: {type(error).__name__}: {error}"


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
    if package.spec.label_rule_note is not None:
        _LOG.warning("%s: %s", package.spec.reference, package.spec.label_rule_note)
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
        readme=package.readme(),
    )
