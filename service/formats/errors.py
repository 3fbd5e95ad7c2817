"""The errors of writing results; those of reading images are in :mod:`model.images.errors`.

::

    FormatError
    ├── UnknownFormat           the asked-for output format does not exist, or none is acceptable
    ├── UnsupportedOutput       this result cannot be written in that format
    └── TooManyValues           there are more of them than are written as JSON

Every message gives what was found, the limit and the remedy.
"""

from __future__ import annotations

from model.images.errors import FormatError


class UnknownFormat(FormatError):
    """No such output format, or none that the client accepts."""


class UnsupportedOutput(FormatError):
    """The result cannot be written in the asked-for format without loss."""


class TooManyValues(FormatError):
    """The result has more values than are written as text."""
