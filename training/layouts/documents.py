"""JSON files of drawn shapes, held to the types that a layout declares."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from training.errors import UnreadableFile
from training.layouts.files import require_target

Read = TypeVar("Read")
_MOST_SHOWN = 60


class Entry(BaseModel):
    """Part of a document: keys beyond the declared ones are left alone, numbers are finite."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


def parse_json(path: Path) -> object:
    """Read a JSON file. NaN is let through: QuPath writes it among measurements.

    Raises
    ------
    UnreadableFile
        Where it cannot be read, or is not JSON.

    """
    require_target(path)
    try:
        parsed: object = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise UnreadableFile(f"{path} is not JSON: {error}; export it again") from error
    return parsed


def hold(document: object, kind: TypeAdapter[Read], path: Path) -> Read:
    """Hold a parsed document to its type.

    Raises
    ------
    UnreadableFile
        Names the first place that differs, what was expected there and what was found, and how many more there are.

    """
    try:
        return kind.validate_python(document)
    except ValidationError as error:
        first, *others = error.errors()
        place = ".".join(str(step) for step in first["loc"]) or "document"
        more = f" (and {len(others)} more such places)" if others else ""
        raise UnreadableFile(
            f"{path}, {place}: {first['msg']}; found {shown(first['input'])}{more}. Correct it"
        ) from error


def shown(value: object) -> str:
    """Return a value as messages show it: cut off where it is long."""
    text = repr(value)
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]} ..."
