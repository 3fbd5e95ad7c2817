"""The receipt that a result carries in itself: PNG, TIFF, JSON and GeoJSON have one, NumPy, CSV and ROIs have not."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path
from typing import Any

import tifffile

from model.images.png_chunks import SIGNATURE
from service.formats import png, tiff

_LENGTH_AND_TYPE = 8
_CHECKSUM = 4


def embedded_receipt(path: Path) -> dict[str, Any] | None:
    """Read the receipt in a result, told by its first bytes; None where there is none.

    Raises
    ------
    OSError
        Where the file cannot be read.

    """
    with path.open("rb") as file:
        begin = file.read(len(SIGNATURE))
    text: bytes | str | None
    if begin == SIGNATURE:
        text = _of_png(path)
    elif begin[:2] in {b"II", b"MM"}:
        text = _of_tiff(path)
    elif begin.lstrip()[:1] == b"{":
        text = path.read_bytes()
    else:
        return None
    return _receipt_in(text)


def _receipt_in(text: bytes | str | None) -> dict[str, Any] | None:
    """Receipt that a text is, or holds in one of the places where formats have it."""
    try:
        found = json.loads(text) if text else None
    except ValueError:
        return None
    for holder in (found, found.get("info")) if isinstance(found, dict) else ():
        for receipt in (holder, holder.get("receipt")) if isinstance(holder, dict) else ():
            if isinstance(receipt, dict) and {"service", "model", "output"} <= receipt.keys():
                return receipt
    return None


def _of_png(path: Path) -> bytes | None:
    with path.open("rb") as file:
        file.seek(len(SIGNATURE))
        while len(head := file.read(_LENGTH_AND_TYPE)) == _LENGTH_AND_TYPE and head[4:] != b"IDAT":
            length = int.from_bytes(head[:4])
            if head[4:] != b"tEXt":
                file.seek(length + _CHECKSUM, os.SEEK_CUR)
            elif (text := file.read(length)).startswith(png.RECEIPT):
                return text.removeprefix(png.RECEIPT)
            else:
                file.seek(_CHECKSUM, os.SEEK_CUR)
    return None


def _of_tiff(path: Path) -> str | None:
    try:
        with tifffile.TiffFile(path) as file:
            description = file.pages.first.description
    except (tifffile.TiffFileError, struct.error, ValueError, IndexError):
        return None
    lines = description.splitlines()
    return next((line.removeprefix(tiff.RECEIPT) for line in lines if line.startswith(tiff.RECEIPT)), None)
