"""The receipt that a result carries in itself: PNG, TIFF, JSON and GeoJSON have one, NumPy, CSV and ROIs have not."""

from __future__ import annotations

import json
import os
import re
import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import tifffile

from model.images.png_chunks import SIGNATURE
from service.formats import png, tiff

_LENGTH_AND_TYPE = 8
_CHECKSUM = 4
_END_BYTES = 4 << 20  # of a document that is looked through, as much at either end: its objects stand between
_MEMBER = re.compile(r'"receipt":\s*(?=\{)')


def embedded_receipt(path: Path) -> dict[str, Any] | None:
    """Read the receipt in a result, told by its first bytes; None where there is none.

    Raises
    ------
    OSError
        Where the file cannot be read.

    """
    with path.open("rb") as file:
        begin = file.read(len(SIGNATURE))
    if begin == SIGNATURE:
        texts = _of_png(path)
    elif begin[:2] in {b"II", b"MM"}:
        texts = _of_tiff(path)
    elif begin.lstrip()[:1] == b"{":
        texts = _of_json(path)
    else:
        return None
    for text in texts:
        with suppress(ValueError, RecursionError):
            found, _ = json.JSONDecoder().raw_decode(text)
            if receipt := as_receipt(found):
                return receipt
    return None


def as_receipt(found: object) -> dict[str, Any] | None:
    """Return what was read as JSON where it is a receipt, else None."""
    if not isinstance(found, dict):
        return None
    members = [("service", str), ("input", dict), ("tiles", dict), ("model", dict), ("output", dict)]
    whole = all(isinstance(found.get(name), kind) for name, kind in members)
    return found if whole and {"name", "version"} <= found["model"].keys() and "kind" in found["output"] else None


def _of_json(path: Path) -> Iterator[str]:
    """Texts that begin with the document itself, where it is short, or with a member of it that is a receipt."""
    with path.open("rb") as file:
        ends = [file.read(_END_BYTES)]
        size = file.seek(0, os.SEEK_END)
        if size > _END_BYTES:
            file.seek(-_END_BYTES, os.SEEK_END)
            ends.append(file.read())
    for end in ends:
        text = end.decode(errors="replace")
        if len(ends) == 1:
            yield text.lstrip()
        for member in _MEMBER.finditer(text):
            yield text[member.end() :]


def _of_png(path: Path) -> Iterator[str]:
    with path.open("rb") as file:
        file.seek(len(SIGNATURE))
        while len(head := file.read(_LENGTH_AND_TYPE)) == _LENGTH_AND_TYPE and head[4:] != b"IDAT":
            length = int.from_bytes(head[:4])
            if head[4:] != b"tEXt":
                file.seek(length + _CHECKSUM, os.SEEK_CUR)
                continue
            text = file.read(length)
            file.seek(_CHECKSUM, os.SEEK_CUR)
            if text.startswith(png.RECEIPT):
                yield text.removeprefix(png.RECEIPT).decode(errors="replace")


def _of_tiff(path: Path) -> Iterator[str]:
    with suppress(tifffile.TiffFileError, struct.error, ValueError, IndexError), tifffile.TiffFile(path) as file:
        for line in file.pages.first.description.splitlines():
            if line.startswith(tiff.RECEIPT):
                yield line.removeprefix(tiff.RECEIPT)
