"""A receipt for each result: what it was made from and how, and what of it may be replaced."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from pathlib import Path
from typing import Any

from service.batch.files import Content, bytes_of, content_of, is_copy, stamp
from service.batch.images import Image
from service.batch.shard import hashed
from service.batch.targets import EarlierResults, Work

FOLDER = ".unet"
"""Below the folder of results; hidden, so that viewers and patterns pass it by."""

FINISHED = "finished"
"""Field of a receipt whose result is in its place: when that was."""

BEFORE = "before"
"""Field of a receipt whose result may not be in its place yet: what was there, or null."""

_LONGEST_NAME = 255  # bytes, on almost every file system


class NotReplaced(Exception):
    """In the place of a result stands a file that was changed, or not made here, or from another image."""


class State(Enum):
    """What has become of a finished result."""

    AS_MADE = 1
    CHANGED = 2
    """It has another size: people have corrected it."""


@dataclass(frozen=True, slots=True)
class Receipts(EarlierResults):
    """Receipts of the results in one folder.

    Parameters
    ----------
    out
        The folder.

    """

    out: Path

    @property
    def folder(self) -> Path:
        """Where they lie."""
        return self.out / FOLDER / "receipts"

    def place(self, target: Path) -> Path:
        """Where the receipt of a result is, or will be."""
        below = target.absolute().relative_to(self.out.absolute())
        name = f"{below.name}.json"
        if len(os.fsencode(name)) > _LONGEST_NAME:
            name = f"{hashed(below)}.json"
        return self.folder / below.parent / name

    def read(self, target: Path) -> dict[str, Any]:
        """Receipt of a result; empty where there is none that can be read."""
        try:
            found = json.loads(self.place(target).read_bytes())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def state(self, work: Work, identity: Mapping[str, Any]) -> State | None:
        """Say what has become of a result that was made from this image as it is now and under the same ``identity``.

        None where there is no such result, or nothing is left of it.
        """
        receipt = self.read(work.target)
        try:
            size_bytes = bytes_of(work.target)
            if (
                FINISHED not in receipt
                or receipt["identity"] != identity
                or receipt["image"] != stamp(work.source)
                or not size_bytes
                or _of_another(receipt, work.source)
            ):
                return None
            return State.AS_MADE if receipt["result"]["bytes"] == size_bytes else State.CHANGED
        except (OSError, KeyError, TypeError):
            return None

    def made_as(self, image: Image, target: Path) -> str | None:
        """Format that ``target`` was made in from this image, whatever has become of either since; None where not."""
        receipt = self.read(target)
        if receipt.get("name") != image.name.as_posix():
            return None
        try:
            return str(receipt["identity"]["options"]["format"])
        except (KeyError, TypeError):
            return ""

    def made_from(self, image: Path, target: Path) -> bool:
        """Whether ``target`` was made from the file of this path, whatever has become of either since."""
        path = self.read(target).get("path")
        return isinstance(path, str) and os.path.abspath(path) == os.path.abspath(image)  # noqa: PTH100 - text is enough

    def made(self, file: Path) -> bool:
        """Whether a file is a result of this ledger."""
        return file.absolute().is_relative_to(self.out.absolute()) and self.place(file).exists()

    def replaced(self, work: Work) -> Content | None:
        """Say what the result is made of that a new one would replace; None where there is none.

        Raises
        ------
        NotReplaced
            Where it is not as it was made, or was not made here, or from another image: one of another
            name, or of another folder that is still there.
        OSError
            Where it cannot be read.

        """
        try:
            work.target.lstat()
        except FileNotFoundError:
            return None
        receipt = self.read(work.target)
        made = [content for content in (receipt.get("result"), receipt.get(BEFORE)) if content]
        if not made:
            raise _kept(work, "was not made here")
        if receipt.get("name") != work.image.name.as_posix():
            raise _kept(work, f"was made from {receipt.get('name')!r}")
        if _of_another(receipt, work.source):
            raise _kept(work, f"was made from {receipt['path']!r}, which is still there", "use another -o")
        found = None
        with suppress(FileNotFoundError):  # a link to nothing
            found = content_of(work.target)
        if found not in made:
            raise _kept(work, "has been changed since it was made")
        return found


def made_by_any() -> Callable[[Path], bool]:
    """Return a test whether a folder that a file lies in has a receipt for it; each folder is looked into once."""

    @lru_cache(maxsize=4096)
    def has_receipts(folder: Path) -> bool:
        return Receipts(folder).folder.is_dir()

    def is_made(file: Path) -> bool:
        return any(Receipts(folder).made(file) for folder in file.absolute().parents if has_receipts(folder))

    return is_made


def _kept(work: Work, why: str, remedy: str = "move it") -> NotReplaced:
    return NotReplaced(f"{str(work.target)!r} {why}; {remedy}, or give --overwrite")


def _of_another(receipt: Mapping[str, Any], image: Path) -> bool:
    """Whether a result was made from another file, which is still there, than this image or a copy of it.

    A path that is gone says nothing: the same images may be mounted elsewhere today.
    """
    path = receipt.get("path")
    if not isinstance(path, str) or not os.path.exists(path):  # noqa: PTH110 - Path's raises where it may not look
        return False
    try:
        return not os.path.samefile(path, image) and not is_copy(image, Path(path))  # noqa: PTH121
    except OSError:
        return True
