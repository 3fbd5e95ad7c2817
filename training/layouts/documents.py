"""JSON files of drawn shapes, held to the types that a layout declares."""

from __future__ import annotations

import gzip
import json
import re
import zlib
from pathlib import Path
from typing import IO, TypeVar, cast

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from training.errors import UnreadableFile
from training.layouts.files import require_target
from training.names import GZIP

Read = TypeVar("Read")
_MOST_SHOWN = 60
_HEAD_BYTES = 1 << 16
_GEOJSON = re.compile(
    rb'\A\s*\[\s*\]\s*\Z|"type"\s*:\s*"(Feature|FeatureCollection|(Multi)?Polygon|GeometryCollection)"'
)
"""What stands at the beginning of GeoJSON; a list without an entry is one of no features."""


class Entry(BaseModel):
    """Part of a document: keys beyond the declared ones are left alone, numbers are finite."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


def parse_json(path: Path) -> object:
    """Read a JSON file, compressed (``.gz``) or not. NaN is let through: QuPath writes it among measurements.

    Raises
    ------
    UnreadableFile
        Where it cannot be read, or is not JSON.

    """
    require_target(path)
    try:
        with _opened(path) as file:
            parsed: object = json.load(file)
    except (OSError, ValueError, RecursionError, EOFError, zlib.error) as error:
        raise UnreadableFile(f"{path} is not JSON: {error}; export it again") from error
    return parsed


def looks_like_geojson(path: Path) -> bool:
    """Whether the beginning of a JSON file, compressed or not, is one of GeoJSON; no features at all are, too."""
    try:
        with _opened(path) as file:
            return _GEOJSON.search(file.read(_HEAD_BYTES)) is not None
    except (OSError, EOFError, zlib.error):
        return False


def _opened(path: Path) -> IO[bytes]:
    return cast("IO[bytes]", gzip.open(path)) if path.suffix.lower() == GZIP else path.open("rb")


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
