"""Data folders that part their images themselves: ``train/`` and ``test/``, each laid out as a data folder is.

An image keeps the name of its part, ``train-NAME``, for both parts may have an image of one name.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from training.errors import MissingFile
from training.layouts.choice import has_layout
from training.layouts.source import tell_once
from training.options import Data

_TRAINING = ("train", "training")
_VALIDATION = ("val", "valid", "validation", "test", "testing")
"""Names of folders, those that go before others first."""


def find_parts(folder: Path, data: Data) -> tuple[str, str] | None:
    """Names of the sub-folders whose images are for training and for validation.

    None where one of them is missing or has no layout, or the folder has a layout itself.
    """
    training, validation = _named(folder, _TRAINING), _named(folder, _VALIDATION)
    if not training or not validation or has_layout(folder, data):
        return None
    parts = training[0], validation[0]
    return parts if all(has_layout(folder / part, data) for part in parts) else None


def data_folders(folder: Path, data: Data) -> list[tuple[str, Path]]:
    """Folders that have a layout, each with what the stems of its images begin with.

    They are the parts that ``data`` names, or the folder itself where it has none of these. The log says so, and which
    other parts are left out.

    Raises
    ------
    MissingFile
        Where one of the parts is missing, or the folder parts its images and ``data`` does not say so.

    """
    if data.parts is None:
        found = find_parts(folder, data)
        if found is None:
            return [("", folder)]
        training, validation = found
        raise MissingFile(
            f"{folder} parts its images itself, into {training}/ and {validation}/, which a split by their names would "
            f'mix. To train on {training}/ and validate on {validation}/, set data.parts = ["{training}", '
            f'"{validation}"] in the recipe; to read one of them alone, name it: --data {folder / validation}'
        )
    training, validation = data.parts
    missing = [part for part in data.parts if not (folder / part).is_dir()]
    if len(missing) == len(data.parts):
        tell_once(logging.INFO, f"{folder} has no {training}/ and no {validation}/: all of its images are taken")
        return [("", folder)]
    if missing:
        raise MissingFile(f"{folder} has no {missing[0]}/, which data.parts names. Add it, or correct the recipe")
    others = [name for name in _named(folder, (*_TRAINING, *_VALIDATION)) if name not in data.parts]
    left_out = f"; left out: {', '.join(f'{name}/' for name in others)}" if others else ""
    tell_once(logging.INFO, f"{folder}: {training}/ is trained on, {validation}/ validates{left_out}")
    return [(stem_in(part, ""), folder / part) for part in data.parts]


def stem_in(part: str, stem: str) -> str:
    """Stem of an image in a part."""
    return f"{part}-{stem}"


def _named(folder: Path, names: Sequence[str]) -> list[str]:
    """Sub-folders of these names, in capitals or not, in the order of the names."""
    if not folder.is_dir():
        return []
    there = {path.name.lower(): path.name for path in sorted(folder.iterdir()) if path.is_dir()}
    return [there[name] for name in names if name in there]
