"""Packages that come, change and go while the service runs: what is done about them, one step at a time.

Nothing counts until two looks have seen the same, for packages are copied file by file. What is new or changed is
loaded as at the start, and takes its place when it has passed; what does not pass is refused, and what was served from
that place before still is. What is gone is served no longer, unless no package is left in its folder, which is what a
volume looks like that has gone for a moment, or the default model would be lost with it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from model.errors import ModelError
from model.package import read_package
from model.session import SessionOptions
from model.spec import ModelSpec
from service.engine.packages.finding import Fingerprint, fingerprint, is_gone, package_names, packages_in
from service.engine.packages.loading import working_bytes
from service.engine.packages.planning import PlanLimits
from service.engine.packages.registry import Entry, Registry, load_entry, log_news, make_registry
from service.engine.resources import give_memory_back
from service.engine.scheduling.between import BetweenBatches

_LOG = logging.getLogger("unet.engine")
_GONE = "its package is gone"
_REPLACED = "another package is in its place"
_REFUSED = "what is in its place now is not served"
_FOLDER_GONE = "no package is left in {}, which may be a volume that comes back; a restart drops it"
_DEFAULT = "its package is gone, but nothing else serves requests that name no model; put it back, or restart"


@dataclass(frozen=True, slots=True)
class Due:
    """A package that is to be loaded, what it is called, and the bytes of memory that loading it takes."""

    path: Path
    name: str
    working_bytes: int


class Rescan:
    """Takes seconds and waits for disks: each call from a thread, one at a time.

    Parameters
    ----------
    registry
        What is served so far.
    default, options, limits
        As for :func:`service.engine.packages.registry.load_registry`.
    between
        As for :func:`service.engine.packages.registry.load_model`.

    """

    def __init__(
        self,
        registry: Registry,
        default: str | None,
        options: SessionOptions,
        limits: PlanLimits,
        between: BetweenBatches | None,
    ) -> None:
        self.registry = registry
        self._default = default
        self._options = options
        self._limits = limits
        self._between = between
        self._last: Mapping[Path, Fingerprint] = {path: entry.files for path, entry in registry.entries.items()}
        self._told = registry
        self._wanted: set[Path] = set()  # asked for, and not yet loaded
        self._warned: set[str] = set()

    def look(self, *, asked: bool = False) -> tuple[Due, ...]:
        """Look what has changed; return what is to be loaded, and note what is gone.

        Parameters
        ----------
        asked
            Somebody says that all is in place: nothing waits for a second look, and what was refused is tried again.

        """
        now, last, entries = self._seen(), self._last, dict(self.registry.entries)
        self._last = now
        due = []
        for path in dict.fromkeys((*now, *entries)):
            entry, wanted = entries.get(path), asked or path in self._wanted
            settled = wanted or now.get(path) == last.get(path)
            if entry is None:
                due += [path] if settled else []
            elif path not in now:
                if settled and not entry.gone:
                    # what was refused there is no way back to what was served before
                    files = entry.files if entry.refusal is None else ()
                    entries[path] = Entry(files, before=entry.served, reason=_GONE)
            elif entry.files != now[path]:
                due += [path] if settled else []
            elif entry.gone:  # it is back as it was
                entries[path] = Entry(entry.files, entry.before[0], before=entry.before[1:], reason=_REPLACED)
            elif wanted and entry.refusal is not None and entry.twin is None:
                due.append(path)
        there = {entry.model.package.spec.reference for entry in entries.values() if entry.model is not None}
        due += [path for path, entry in entries.items() if entry.twin and entry.twin not in there]
        self._become(entries)
        if asked:
            self._wanted = set(due)
        names = package_names({*entries, *due})
        return tuple(Due(path, names[path], working_bytes(now[path])) for path in dict.fromkeys(due) if path in now)

    def load(self, path: Path, opened: Callable[[], None] | None = None) -> None:
        """Load what is at a place; it takes over from what was served from there before, if it is sound.

        For ``opened`` see :func:`service.engine.packages.loading.load_model`.
        """
        name, between = self._name(path), self._between
        if between:
            between.loading(name)
        self._put(path, load_entry(name, path, self._options, self._limits, between=between, opened=opened))
        give_memory_back()

    def refuse(self, path: Path, reason: str) -> None:
        """Refuse what is at a place without loading it; what was served from there before still is."""
        _LOG.error("package %s is not served: %s", self._name(path), reason)
        self._put(path, Entry(self._last[path], refusal=reason))

    def _name(self, path: Path) -> str:
        return package_names({*self.registry.entries, path})[path]

    def _put(self, path: Path, entry: Entry) -> None:
        self._wanted.discard(path)
        entries = dict(self.registry.entries)
        served = entries[path].served if path in entries else ()
        entries[path] = replace(entry, before=served, reason=_REFUSED if entry.refusal else _REPLACED)
        self._become(entries)

    def drop(self, waiting: Collection[Path] = ()) -> None:
        """Let go of what is gone or has a successor, but for that in whose place packages come that wait for memory."""
        former, awaited = self.registry, tuple(_specs(waiting))
        entries = dict(former.entries)
        for path, entry in former.entries.items():
            folder = next(folder for folder in former.folders if folder in (path, path.parent))
            if entry.gone and not any(folder in (place, place.parent) for place in self._last):
                entries[path] = replace(entry, reason=_FOLDER_GONE.format(folder))
            elif entry.refusal is None and not (entry.gone and path in self._last):  # else it is about to come back
                still = tuple(model for model in entry.before if _has_to_wait(model.package.spec, entry, awaited))
                entries[path] = replace(entry, before=still)
        if former.default is not None and make_registry(entries, former.folders, self._default).default is None:
            path = next(path for path, entry in former.entries.items() if former.default in entry.before)
            entries[path] = replace(entries[path], before=(former.default,), reason=_DEFAULT)
        self._become(entries)
        log_news(self.registry, self._told)
        self._told = self.registry

    def _seen(self) -> dict[Path, Fingerprint]:
        """What is there now, in order; places that were a package's and still exist may be one again."""
        found: dict[Path, Fingerprint] = {}
        for folder in self.registry.folders:
            try:
                found |= {path: fingerprint(path) for path in packages_in(folder, self._warn)}
            except OSError:  # for a moment, perhaps: what was there counts as unchanged, and the registry says why
                found |= {path: files for path, files in self._last.items() if folder in (path, path.parent)}
        others = (path for path in self.registry.entries if path not in found and not is_gone(path))
        return found | {path: fingerprint(path) for path in others}

    def _warn(self, line: str) -> None:
        if line not in self._warned:
            self._warned.add(line)
            _LOG.warning("%s", line)

    def _become(self, entries: Mapping[Path, Entry]) -> None:
        former = self.registry
        in_order = {path: entries[path] for path in (*self._last, *entries) if path in entries}
        registry = make_registry(in_order, former.folders, self._default, former.default)
        if registry != former:  # a folder without packages may have become readable, or no longer be so
            self.registry = registry


def _specs(waiting: Collection[Path]) -> Iterator[ModelSpec]:
    for path in waiting:
        with suppress(ModelError):  # it will be refused, and comes in nothing's place
            yield read_package(path).spec


def _has_to_wait(spec: ModelSpec, entry: Entry, awaited: Collection[ModelSpec]) -> bool:
    """Whether one that is awaited is the same at another place, or all that is left of its name."""
    return any(spec.reference == other.reference or (entry.gone and spec.name == other.name) for other in awaited)
