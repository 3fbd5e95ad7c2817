"""What permissions do, shown to tests that run as the superuser, to whom they mean nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory


@contextmanager
def unprivileged() -> Iterator[None]:
    """As a user whom permissions mean something to."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


@contextmanager
def open_to_all() -> Iterator[Path]:
    """Make a folder that other users may look into, unlike pytest's."""
    with TemporaryDirectory() as place:
        folder = Path(place)
        folder.chmod(0o755)
        yield folder


@contextmanager
def shut(folder: Path) -> Iterator[None]:
    """Let nobody look into a folder, as a user whom that binds."""
    folder.chmod(0)
    try:
        with unprivileged():
            yield
    finally:
        folder.chmod(0o755)
