"""Measured speeds, kept from one start to the next: one small JSON file for each package, backend and machine.

Nothing depends on it. Where the folder cannot be written (a container with a read-only root), every start measures
anew; a file that cannot be read or is not what was written counts as not there.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from model.atomic import replacing
from model.cost import CostModel, Measurement, fit_cost
from service.engine.packages.machine import this_machine

_LOG = logging.getLogger("unet.engine")
_VERSION = 1  # of the file and of how tiles are timed
_NOWHERE = "none"


@dataclass(frozen=True, slots=True)
class CostKey:
    """What a measured speed holds for: these, the CPU and the runtimes' versions."""

    sha256: str
    backend: str
    precision: str
    threads: int

    def document(self) -> dict[str, object]:
        """Return everything that must be equal for a file to be of use."""
        machine = this_machine()
        return {
            "version": _VERSION,
            "package": self.sha256,
            "backend": self.backend,
            "precision": self.precision,
            "threads": self.threads,
            "cpu": machine.cpu,
            "runtimes": machine.runtimes,
        }


@dataclass(frozen=True, slots=True)
class CostStore:
    """A folder of measured speeds; None for none."""

    folder: Path | None

    def load(self, key: CostKey, shrink_yx: tuple[int, int] = (0, 0)) -> CostModel | None:
        """Return what was measured before, of a net whose output is so much smaller than its input, or None."""
        if self.folder is None:
            return None
        wanted = key.document()
        path = self.folder / _name(wanted)
        try:
            found = json.loads(path.read_text())
            if {name: found.get(name) for name in wanted} != wanted:
                return None
            tiles = [Measurement((int(y), int(x)), float(seconds)) for y, x, seconds in found["tiles"]]
            return fit_cost(tiles, shrink_yx)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            _LOG.warning("measured speeds in %s are not used: %s", path, error)
            return None

    def save(self, key: CostKey, measurements: Sequence[Measurement]) -> Path | None:
        """Keep measurements for the next start; returns the file, or None where nothing can be kept."""
        if self.folder is None:
            return None
        document = key.document()
        tiles = [[*measured.input_yx, measured.seconds] for measured in measurements]
        path = self.folder / _name(document)
        try:
            with replacing(path) as file:  # several services may share the folder
                file.write(json.dumps(document | {"tiles": tiles}).encode())
        except OSError as error:
            _LOG.info("measured speeds are not kept: %s", error)
            return None
        return path


def cost_store(cache_dir: str) -> CostStore:
    """Store for the setting ``UNET_CACHE_DIR``: a folder, ``none``, or empty for the user's own cache."""
    if cache_dir == _NOWHERE:
        return CostStore(None)
    if cache_dir:
        return CostStore(Path(cache_dir))
    base = os.environ.get("XDG_CACHE_HOME", "")
    try:
        # the XDG specification: a relative path is to be ignored
        home = Path(base) if Path(base).is_absolute() else Path.home() / ".cache"
    except RuntimeError:  # a user without a home
        return CostStore(None)
    return CostStore(home / "unet-service")


def _name(document: dict[str, object]) -> str:
    text = json.dumps(document, sort_keys=True)
    return f"speed-{hashlib.sha256(text.encode()).hexdigest()[:20]}.json"
