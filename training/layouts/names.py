"""Names of files as they are compared, sorted and hashed: macOS may write "ü" as two characters, others write one."""

from __future__ import annotations

from pathlib import PurePath
from unicodedata import normalize


def composed(name: str) -> str:
    """Return a name in Unicode's composed form (NFC), the same on every machine."""
    return normalize("NFC", name)


def decomposed(name: str) -> str:
    """Return a name in Unicode's decomposed form (NFD), as macOS may write it."""
    return normalize("NFD", name)


def stem_of(path: PurePath) -> str:
    """Return the name without its last suffix, composed."""
    return composed(path.stem)
