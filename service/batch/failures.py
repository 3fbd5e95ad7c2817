"""Lists of images that failed, one for each shard: what they are called, and which of their entries are out of date."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from pathlib import Path

from service.batch.shard import WHOLE, Shard


def list_name(shard: Shard) -> str:
    """What the list of a shard is called."""
    return "failures.json" if shard == WHOLE else f"failures-{shard.label}.json"


def lists(out: Path) -> dict[str, Path]:
    """All lists in a folder of results, by the labels of their shards."""
    found = {}
    for path in out.glob("failures*.json"):
        if path.name == list_name(WHOLE):
            found[WHOLE.label] = path
        elif shard := re.fullmatch(r"failures-(\d+-of-\d+)\.json", path.name):
            found[shard[1]] = path
    return found


def still_true(file: Path, images: Iterable[Path]) -> list[dict[str, str]] | None:
    """What is left of a list once ``images`` have been done, or listed, anew; nothing where all of it still holds.

    Entries of folders go where they can be looked into by now: whoever cannot lists them again.
    """
    entries = _entries(file)
    left = _untold(entries, images)
    return left if len(left) < len(entries) else None


def of_others(file: Path, images: Iterable[Path]) -> list[dict[str, str]]:
    """Entries of a shard's last list that hold beside a run over ``images``: those of files that are still there."""
    return [entry for entry in _untold(_entries(file), images) if not _gone(entry["image"])]


def _entries(file: Path) -> list[dict[str, str]]:
    try:
        return [{**entry, "image": str(entry["image"])} for entry in json.loads(file.read_bytes())]
    except (OSError, ValueError, KeyError, TypeError):  # not written by us, or gone
        return []


def _untold(entries: Iterable[dict[str, str]], images: Iterable[Path]) -> list[dict[str, str]]:
    told = {_absolute(str(image)) for image in images}
    return [entry for entry in entries if _absolute(entry["image"]) not in told and not _open(entry["image"])]


def _gone(image: str) -> bool:
    """Whether a file is not where it was; without its folder, as on a disk that is away, nobody knows."""
    try:
        Path(image).lstat()
    except FileNotFoundError:
        return Path(image).parent.is_dir()
    except (OSError, ValueError):
        return False
    return False


def _open(folder: str) -> bool:
    return Path(folder).is_dir() and os.access(folder, os.R_OK | os.X_OK)


def _absolute(image: str) -> str:
    return os.path.abspath(image)  # noqa: PTH100 - as for find_images: text is enough
