"""The packages that are served, under which names, and those that are not, and why."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from model.errors import BackendUnavailable, ModelError
from model.session import SessionOptions
from service.engine.errors import NotReady, UnknownModel
from service.engine.packages.finding import (
    Fingerprint,
    by_name,
    find_packages,
    fingerprint,
    missing_folders,
    none_in,
    package_folders,
    package_names,
    twins_among,
    unknown_model,
)
from service.engine.packages.loading import CALIBRATION_S, LoadedModel, load_model, refusal_of
from service.engine.packages.planning import PlanLimits
from service.engine.scheduling.between import BetweenBatches

_LOG = logging.getLogger("unet.engine")


@dataclass(frozen=True, slots=True)
class Entry:
    """What has come of the package at one place."""

    files: Fingerprint
    """As they were when it was read."""
    model: LoadedModel | None = None
    """What is served from it."""
    refusal: str | None = None
    """Why what is there is not served."""
    twin: str | None = None
    """Its name and version, where that is why: another place has them, too."""
    before: tuple[LoadedModel, ...] = ()
    """What was served from it, and is until something else has its name and version."""
    reason: str = ""
    """Why that is still served."""

    @property
    def served(self) -> tuple[LoadedModel, ...]:
        """All that is served from it."""
        return self.before if self.model is None else (self.model, *self.before)

    @property
    def gone(self) -> bool:
        """Whether nothing is at the place, and what was there is still served."""
        return self.model is None and self.refusal is None


@dataclass(frozen=True, slots=True)
class Registry:
    """What is served, and what was refused for which reason."""

    models: tuple[LoadedModel, ...]
    refused: Mapping[str, str]
    kept: Mapping[str, str]
    """Of ``models``, by name and version, those that are no longer at their place, and why they are still served."""
    default: LoadedModel | None
    problem: str | None
    """Why there is no default model, where there is none."""
    folders: tuple[Path, ...]
    """Where packages were looked for."""
    entries: Mapping[Path, Entry]
    """All places where packages are, or were, in order."""

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
    folders: Sequence[Path] | None,
    default: str | None,
    options: SessionOptions,
    limits: PlanLimits,
    awaits: Callable[[tuple[str, ...]], None] = lambda _: None,
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
    awaits
        Told, before each package, what it and those after it are called.

    """
    sources = package_folders(folders)
    paths = find_packages(sources)
    entries: dict[Path, Entry] = {}
    for name, path in paths.items():
        awaits(tuple(paths)[len(entries) :])
        entries[path] = load_entry(name, path, options, limits, calibration_s=CALIBRATION_S / len(paths))
    registry = make_registry(entries, sources, default)
    log_news(registry, None)
    return registry


def load_entry(
    name: str,
    path: Path,
    options: SessionOptions,
    limits: PlanLimits,
    *,
    calibration_s: float = CALIBRATION_S,
    between: BetweenBatches | None = None,
    opened: Callable[[], None] | None = None,
) -> Entry:
    """Load the package that is at a place, or say why it cannot be served; see :func:`load_model`."""
    files = fingerprint(path)
    try:
        return Entry(files, load_model(path, options, limits, calibration_s, between=between, opened=opened))
    except ModelError as error:
        kind = "backend" if isinstance(error, BackendUnavailable) else "package"
        _LOG.error("%s %s is not served: %s", kind, name, error)
        return Entry(files, refusal=refusal_of(error))
    except Exception as error:
        # one package, however odd, must not keep the others from being served
        _LOG.exception("package %s is not served", name)
        return Entry(files, refusal=refusal_of(error))


def make_registry(
    entries: Mapping[Path, Entry], folders: tuple[Path, ...], default: str | None, former: LoadedModel | None = None
) -> Registry:
    """Decide who has each name and version: the first that is in its place, then what was there before.

    Parameters
    ----------
    entries
        By place, in order; what has lost its name and version lets go of its net.
    folders, default
        As for :func:`load_registry`.
    former
        The default model so far: where none is set, its name goes on to mean it.

    """
    names = package_names(entries)
    references = {names[path]: entry.model.package.spec.reference for path, entry in entries.items() if entry.model}
    twins = twins_among(references)
    told = {
        path: replace(entry, model=None, refusal=twins[name], twin=references[name])
        if (name := names[path]) in twins
        else entry
        for path, entry in entries.items()
    }
    models = [entry.model for entry in told.values() if entry.model is not None]
    taken = set(references.values())
    kept: dict[str, str] = {}
    for path, entry in told.items():
        still = tuple(model for model in entry.before if model.package.spec.reference not in taken)
        told[path] = replace(entry, before=still)
        kept |= {model.package.spec.reference: entry.reason for model in still}
        taken.update(kept)
        models += still
    told = {path: entry for path, entry in told.items() if entry.refusal is not None or entry.served}
    refused = missing_folders(folders) if entries else {}  # else the problem says it of all
    refused |= {names[path]: entry.refusal for path, entry in told.items() if entry.refusal is not None}
    models = by_name(models, lambda model: model.package.spec)
    same = (model for model in models if former and model.package.spec.name == former.package.spec.name)
    registry = Registry(tuple(models), refused, kept, next(iter((*same, *models)), None), None, folders, told)
    if not models:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in refused.items()) or none_in(folders)
        return replace(registry, problem=f"no model package is served: {reasons}")
    if default is not None:
        try:
            return replace(registry, default=registry.get(default))
        except UnknownModel as error:
            return replace(registry, default=None, problem=f"the default model: {error}")
    return registry


def log_news(registry: Registry, former: Registry | None) -> None:
    """Log what the former registry did not say, but for packages that failed: loading them has."""
    said = dict(_lines(former)) if former else {}
    for line, level in _lines(registry):
        if line not in said:
            _LOG.log(level, "%s", line)
    for reference in dropped(former, registry) if former else ():
        _LOG.info("%s is served no longer", reference)


def dropped(former: Registry, registry: Registry) -> tuple[str, ...]:
    """Names and versions that the former registry serves and the other does not."""
    served = {model.package.spec.reference for model in registry.models}
    return tuple(model.package.spec.reference for model in former.models if model.package.spec.reference not in served)


def _lines(registry: Registry) -> Iterator[tuple[str, int]]:
    entries = {name: registry.entries[path] for path, name in package_names(registry.entries).items()}
    for name, reason in registry.refused.items():
        if name not in entries:
            yield f"no package is served from {name}: {reason}", logging.WARNING
        elif entries[name].twin:
            yield f"package {name} is not served: {reason}", logging.WARNING
    for reference, reason in registry.kept.items():
        yield f"{reference} is served on: {reason}", logging.WARNING
    if registry.problem is not None:
        yield registry.problem, logging.ERROR
