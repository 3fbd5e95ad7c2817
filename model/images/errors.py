"""The errors of reading images, one tree; those of writing results share its root.

::

    FormatError
    ├── UnsupportedImageFormat  the bytes are no known image
    ├── UndecodableImage        a known format, but broken, truncated, hostile or of a kind that is not supported
    ├── AxesMismatch            the axes that the caller names are not those of the image
    └── ImageTooLarge           the header declares more than the limits allow; nothing was decoded

Every message gives what was found, the limit and the remedy.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class FormatError(Exception):
    """Base of every error that reading images or writing results raises on purpose."""


class UnsupportedImageFormat(FormatError):
    """The bytes are not an image of a format that is read here."""


class UndecodableImage(FormatError):
    """The format is known, but this file is broken, truncated, hostile, or of a kind that is not supported."""


class AxesMismatch(FormatError):
    """The axes that the caller names are not those of the image."""


class ImageTooLarge(FormatError):
    """The header declares more pixels or bytes than the limits allow; nothing was decoded."""


@contextmanager
def undecodable(what: str) -> Iterator[None]:
    """Turn whatever a decoder raises on a broken file into :class:`UndecodableImage`.

    Decoders fail on hostile input with nearly every exception there is (``TypeError``, ``IndexError``,
    ``ZeroDivisionError``, ``SyntaxError``, ``struct.error``, ``MemoryError``, ``RecursionError``, codec errors ...),
    so a list of classes would be a list of future crashes.

    Parameters
    ----------
    what
        What was being read, for the message: ``"PNG"``, ``"page 3 of the TIFF"``.

    Raises
    ------
    UndecodableImage
        Chained to the decoder's exception.
    """
    try:
        yield
    except FormatError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        msg = f"{what} cannot be decoded ({reason}); the file is damaged or incomplete: write it again and retry"
        raise UndecodableImage(msg) from error
