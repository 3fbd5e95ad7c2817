"""Names of files as they are compared, sorted and hashed: macOS may write "ü" as two characters, others write one."""

from __future__ import annotations

from pathlib import PurePath
from unicodedata import normalize

GZIP = ".gz"
"""Suffix of a compressed file, after the one that says of what kind it is."""


def composed(name: str) -> str:
    """Return a name in Unicode's composed form (NFC), the same on every machine."""
    return normalize("NFC", name)


def decomposed(name: str) -> str:
    """Return a name in Unicode's decomposed form (NFD), as macOS may write it."""
    return normalize("NFD", name)


def stem_of(path: PurePath) -> str:
    """Return the name without its last suffix, composed; that of a compressed file is two, ``.geojson.gz``."""
    return composed(PurePath(path.stem).stem if path.suffix.lower() == GZIP else path.stem)
