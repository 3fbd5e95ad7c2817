"""The last stage: a result becomes an answer's body, in memory or in a file."""

from __future__ import annotations

import io
from typing import IO

from service.engine.request import Body
from service.engine.spool import Spool, spool_full
from service.formats import Encoder, SegmentationResult


def write_body(encoder: Encoder, result: SegmentationResult, spool: Spool | None) -> Body:
    """Encode a result into a file of ``spool``; where there is none, into memory.

    Raises
    ------
    SpoolFull
        Where the file cannot be written to its end.

    """
    if spool is None:
        return _written(encoder, result, io.BytesIO())
    try:
        return _written(encoder, result, spool.file())
    except OSError as error:
        raise spool_full("the answer is", error) from error


def _written(encoder: Encoder, result: SegmentationResult, file: IO[bytes]) -> Body:
    try:
        encoder.write(result, file)
        return Body(file)
    except BaseException:
        file.close()
        raise
