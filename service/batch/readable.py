"""Images of any format as files that the service reads: their own, or a copy of their full resolution in OME-TIFF.

The copy has no name on the disk, so that nothing is left of it however the process ends. It is written some pixels at a
time, with axes, size of pixels and channel names; and one copy after the other: parts of them may be large.
"""

from __future__ import annotations

import math
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from model.images import UndecodableImage
from service.batch.copies import write_copy
from service.batch.czi import czi_source, czi_title, is_czi
from service.batch.ome_zarr import title_of
from service.batch.zarr_copy import ONE_AT_A_TIME, zarr_source
from service.batch.zarr_packed import is_packed, packed_stem


@dataclass(frozen=True, slots=True)
class Readable:
    """A file to read an image from."""

    path: Path
    """Where it can be opened by this process."""
    name: str
    """What it is called in results."""


@contextmanager
def readable(
    image: Path,
    most_pixels: float = math.inf,
    closed: Callable[[], bool] = lambda: False,
    check: Callable[[IO[bytes]], object] = lambda _: None,
) -> Iterator[Readable]:
    """A file to read an image from: its own, or a copy of one in OME-Zarr or CZI that is there as long as it is needed.

    Parameters
    ----------
    image
        A file, one in OME-Zarr (a folder, or a file that it is packed in), or a scene of a CZI file.
    most_pixels
        Of all planes together; no more are copied.
    closed
        Asked between parts whether nobody wants the copy any more.
    check
        Given the copy while it has a header and no pixel yet; may refuse it by an error.

    Raises
    ------
    FormatError
        Where the image is empty or damaged, or more or other than can be read; see :mod:`model.images.errors`.
    OSError
        Where it cannot be read, or is no file (to open a pipe would take until somebody writes to it), or the temporary
        folder has no room for the copy.
    CancelledError
        Where nobody wants it any more.

    """
    if is_czi(image):
        source, title = czi_source(image), czi_title(image)
    elif image.is_dir():
        source, title = zarr_source(image), title_of(image)
    else:
        status = image.stat()
        if not stat.S_ISREG(status.st_mode):
            raise OSError(f"{str(image)!r} is a pipe, a socket or a device; write the image to a file")
        if not status.st_size:
            raise UndecodableImage(f"{str(image)!r} is empty, it has 0 bytes; copy or write it again")
        if not is_packed(image):
            yield Readable(image, image.name)
            return
        source, title = zarr_source(image), packed_stem(image)
    with tempfile.TemporaryFile() as copy:
        with ONE_AT_A_TIME, source as opened:
            opened.check(most_pixels)
            write_copy(opened, copy, closed, check)
        yield Readable(Path(f"/dev/fd/{copy.fileno()}"), f"{title}.ome.tif")
