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
    told = {_absolute(str(image)) for image in images}
    try:
        entries: list[dict[str, str]] = json.loads(file.read_bytes())
        left = [entry for entry in entries if _absolute(entry["image"]) not in told and not _open(entry["image"])]
    except (OSError, ValueError, KeyError, TypeError):  # not written by us, or gone
        return None
    return left if len(left) < len(entries) else None


def _open(folder: str) -> bool:
    return Path(folder).is_dir() and os.access(folder, os.R_OK | os.X_OK)


def _absolute(image: str) -> str:
    return os.path.abspath(image)  # noqa: PTH100 - as for find_images: text is enough
