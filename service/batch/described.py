"""The receipts of results that lie somewhere: in files, in OME-Zarr stores, or beside them in a folder of results."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from service.batch.receipts import FINISHED, FOLDER, Receipts
from service.formats.embedded import as_receipt, embedded_receipt

_STORE = {"zarr.json": "attributes", ".zattrs": None}
"""File of a store with its attributes, and where they are in it; None where they are all of it."""


def receipts_of(path: Path) -> Iterator[tuple[Path, dict[str, Any] | None]]:
    """Give results and their receipts; None for a result that has none.

    Parameters
    ----------
    path
        A result, or a folder of results as ``unet-service segment`` makes it: those of the folder are all that were
        finished.

    Raises
    ------
    OSError
        Where it is not there, or cannot be read.

    """
    if (kept := path / FOLDER / "receipts").is_dir():
        for place in sorted(kept.rglob("*.json")):
            if receipt := _of_record(_read(place)):
                yield path / place.relative_to(kept).with_suffix(""), receipt
        return
    yield path, (_of_store(path) if path.is_dir() else embedded_receipt(path)) or _beside(path)


def _of_store(path: Path) -> dict[str, Any] | None:
    for name, key in _STORE.items():
        found = _read(path / name)
        attributes = found.get(key, {}) if key else found
        if isinstance(attributes, dict) and (receipt := as_receipt(attributes.get("unet_receipt"))):
            return receipt
    return None


def _beside(path: Path) -> dict[str, Any] | None:
    """Receipt that the folder of results has for a file of a format without room for it."""
    for out in path.absolute().parents:
        if (out / FOLDER / "receipts").is_dir():
            return _of_record(Receipts(out).read(path))
    return None


def _of_record(record: dict[str, Any]) -> dict[str, Any] | None:
    return as_receipt(record.get("receipt")) if FINISHED in record else None


def _read(path: Path) -> dict[str, Any]:
    with suppress(OSError, ValueError):
        found = json.loads(path.read_bytes())
        return found if isinstance(found, dict) else {}
    return {}
