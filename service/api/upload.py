"""The image of a request, from the body as it comes to a seekable file: raw, or field ``image`` of a multipart form."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from tempfile import SpooledTemporaryFile
from typing import BinaryIO, cast

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from service.errors import BrokenMultipart, EmptyBody, EncodedBody, MissingImage, NoRoomForUpload, UploadTooSlow
from service.settings import Settings

_MOST_FIELDS = 32
_MOST_FIELD_BYTES = 4096
_UPLOADS_IN_MEMORY = 4  # of the largest size that may stay in memory


@dataclass(frozen=True, slots=True)
class Upload:
    """A received image, and the other fields of its form."""

    image: BinaryIO
    fields: Sequence[tuple[str, str]]
    """Name and text of each, in their order; a name may come more than once."""


class UploadMemory:
    """Memory of all uploads together, unfinished ones too; what finds no room in it goes to disk from its first byte.

    Parameters
    ----------
    spool_bytes
        Most of one upload; four times as much is there for all.

    """

    def __init__(self, spool_bytes: int) -> None:
        self._most = spool_bytes
        self._free = _UPLOADS_IN_MEMORY * spool_bytes

    @contextmanager
    def share(self, declared: int | None) -> Iterator[int]:
        """Keep memory for one upload; gives the bytes of it that may stay there: all of ``declared``, or none.

        Parameters
        ----------
        declared
            Bytes of the body, None where the client does not say: then as much as one upload may have is kept.

        """
        wanted = self._most if declared is None else declared
        granted = wanted if wanted <= min(self._most, self._free) else 0
        self._free -= granted
        try:
            yield granted
        finally:
            self._free += granted


@asynccontextmanager
async def received(request: Request, settings: Settings, memory: UploadMemory) -> AsyncIterator[Upload]:
    """Receive the image; small ones stay in memory, others go to the temporary folder; closed at the end.

    Raises
    ------
    EncodedBody
        Where the body has a Content-Encoding.
    EmptyBody
        Where there is no byte.
    MissingImage, BrokenMultipart
        Where a multipart body is not as it should be.
    UploadTooSlow
        Where it takes longer than a request may take in all.
    NoRoomForUpload
        Where the temporary folder is full.

    """
    encoding = request.headers.get("content-encoding", "identity")
    if encoding.lower() != "identity":
        raise EncodedBody(
            f"the body has content encoding {encoding[:40]!r}, only identity is read; send the image itself: TIFF and "
            "PNG are compressed inside"
        )
    length = request.headers.get("content-length", "")
    is_form = request.headers.get("content-type", "").lower().startswith("multipart/form-data")
    with memory.share(int(length) if length.isdecimal() else None) as spool_bytes:
        try:
            async with asyncio.timeout(settings.deadline_s):
                upload = await (_from_form if is_form else _from_body)(request, spool_bytes)
        except TimeoutError:
            raise UploadTooSlow(
                f"the body was not complete after {settings.deadline_s:g} s, the longest that a request may take; send "
                "less, or over a faster line"
            ) from None
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            raise NoRoomForUpload(
                f"the body of {length or 'unknown'} bytes finds no room beside other uploads in the temporary folder; "
                f"try again in {NoRoomForUpload.retry_after_s} s, or give the folder more room"
            ) from error
        try:
            yield upload
        finally:
            upload.image.close()


async def _from_body(request: Request, spool_bytes: int) -> Upload:
    # SpooledTemporaryFile takes 0 for "never to disk"
    spool = SpooledTemporaryFile(max_size=max(1, spool_bytes))  # noqa: SIM115 - closed by received()
    complete = False
    try:
        async for chunk in request.stream():
            spool.write(chunk)
        if not spool.tell():
            raise EmptyBody("the body has 0 bytes; send the image as the body, or as multipart field 'image'")
        complete = True
    finally:
        if not complete:
            spool.close()
    return Upload(cast(BinaryIO, spool), ())


class _FormParser(MultiPartParser):
    """Starlette's, but it notices a form that is cut off; Starlette takes what came and leaves a partial file open."""

    complete = False

    def on_end(self) -> None:
        """Note the closing boundary."""
        self.complete = True

    def close(self) -> None:
        """Close every file, those of unfinished parts too."""
        for file in self._files_to_close_on_error:
            with suppress(OSError):  # what cannot be written out is not wanted any more
                file.close()


async def _from_form(request: Request, spool_bytes: int) -> Upload:
    parser = _FormParser(
        request.headers, request.stream(), max_files=1, max_fields=_MOST_FIELDS, max_part_size=_MOST_FIELD_BYTES
    )
    parser.spool_max_size = max(1, spool_bytes)
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise BrokenMultipart(
            f"the multipart body cannot be read: {error.message} Send one file field 'image'"
        ) from error
    except OSError:
        parser.close()
        raise
    if not parser.complete:
        parser.close()
        raise BrokenMultipart("the multipart body ends before its closing boundary; send it again, whole")
    image = form.get("image")
    if not isinstance(image, UploadFile):
        parser.close()
        found = ", ".join(repr(name[:40]) for name in form) or "none"
        raise MissingImage(f"the form needs a file field 'image' with a file name, its fields are: {found}")
    if not image.size:
        parser.close()
        raise EmptyBody("field 'image' has 0 bytes; choose a file")
    fields = [(name, value) for name, value in form.multi_items() if isinstance(value, str)]
    return Upload(image.file, fields)
