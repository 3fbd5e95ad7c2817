"""The image of a request, from the body as it comes to a seekable file: raw, or field ``image`` of a multipart form."""

from __future__ import annotations

import asyncio
import errno
import re
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from email.message import Message
from tempfile import SpooledTemporaryFile
from typing import BinaryIO, cast

from python_multipart.multipart import parse_options_header
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from service.api.upload_room import LIMITS, Share, UploadRoom
from service.request_errors import BrokenMultipart, EmptyBody, EncodedBody, MissingImage, NoRoomForUpload, UploadTooSlow
from service.settings import Settings

_MOST_FIELDS = 32
_MOST_FIELD_BYTES = 4096
_MOST_PREAMBLE_BYTES = 4096
_MOST_OF_A_NAME = 255
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.ENOENT, errno.EACCES, *LIMITS}


@dataclass(frozen=True, slots=True)
class Upload:
    """A received image, and the other fields of its form."""

    image: BinaryIO
    fields: Sequence[tuple[str, str]]
    """Name and text of each, in their order; a name may come more than once."""
    share: Share
    file_name: str | None = None
    """Of the image as the client has it, without folders; None where the client does not say it."""

    async def give_to_job(self) -> None:
        """Keep it for a job, which may wait for long.

        Raises
        ------
        NoRoomForUpload
            Where other jobs hold what they may have together, or the temporary folder is full.

        """
        if self.share.give_to_job():
            try:
                await asyncio.to_thread(cast("SpooledTemporaryFile[bytes]", self.image).rollover)
            except OSError as error:
                if error.errno not in _NO_ROOM:
                    raise
                raise self.share.room.refused(f"the image of {self.share.on_disk} bytes", error) from error


@asynccontextmanager
async def received(
    request: Request, settings: Settings, room: UploadRoom, *, forms: bool = True
) -> AsyncIterator[Upload]:
    """Receive the image; small ones stay in memory, others go to the temporary folder; closed at the end.

    Without ``forms`` the body is taken as it is, whatever its content type.

    Raises
    ------
    EncodedBody
        Where the body has a Content-Encoding, or a Transfer-Encoding but ``chunked``.
    EmptyBody
        Where there is no byte.
    MissingImage, BrokenMultipart
        Where a multipart body is not as it should be.
    UploadTooSlow
        Where it takes longer than a request may take in all.
    NoRoomForUpload
        Where other uploads hold the room there is, or the temporary folder is full.

    """
    for header, plain in (("content-encoding", "identity"), ("transfer-encoding", "chunked")):
        encoding = ", ".join(request.headers.getlist(header)).strip() or plain
        if encoding.lower() != plain:
            raise EncodedBody(
                f"the body has {header.replace('-', ' ')} {encoding[:40]!r}, only {plain} is read; send the image "
                "itself: TIFF and PNG are compressed inside"
            )
    length = request.headers.get("content-length", "")
    is_form = forms and request.headers.get("content-type", "").lower().startswith("multipart/form-data")
    with room.share(int(length) if length.isdecimal() else None) as share:
        try:
            async with asyncio.timeout(settings.deadline_s):
                upload = await (_from_form if is_form else _from_body)(request, share)
        except TimeoutError:
            raise UploadTooSlow(
                f"the body was not complete after {settings.deadline_s:g} s, the longest that a request may take; send "
                "less, or over a faster line"
            ) from None
        except OSError as error:
            if error.errno not in _NO_ROOM:
                raise
            raise room.refused(f"the body of {length or 'unknown'} bytes", error) from error
        try:
            if forms and not is_form and not upload.image.tell():
                raise EmptyBody("the body has 0 bytes; send the image as the body, or as multipart field 'image'")
            yield upload
        finally:
            upload.image.close()


async def kept_beside(held: ExitStack, room: UploadRoom, most_bytes: int, chunks: AsyncIterator[bytes]) -> BinaryIO:
    """Keep ``most_bytes`` of values, or less, as uploads are kept, until ``held`` is closed.

    Raises
    ------
    NoRoomForUpload
        Where uploads hold the room there is, or the temporary folder is full.

    """
    share = held.enter_context(room.share(most_bytes))
    try:
        return held.enter_context(await _spooled(chunks, share))
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        raise room.refused(f"a tensor of {most_bytes} bytes", error) from error


async def _from_body(request: Request, share: Share) -> Upload:
    name = _name_in(request.headers.get("content-disposition", ""))
    return Upload(await _spooled(request.stream(), share), (), share, name)


async def _spooled(chunks: AsyncIterator[bytes], share: Share) -> BinaryIO:
    # SpooledTemporaryFile takes 0 for "never to disk"
    spool = SpooledTemporaryFile(max_size=max(1, share.in_memory))  # noqa: SIM115 - closed by whoever asked for it
    complete = False
    try:
        async for chunk in share.counted(chunks):
            spool.write(chunk)
        complete = True
    finally:
        if not complete:
            spool.close()
    return cast(BinaryIO, spool)


class _FormParser(MultiPartParser):
    """Starlette's, but it notices a form that is cut off; Starlette takes what came and leaves a partial file open."""

    complete = False

    @property
    def field(self) -> str:
        """Name of the part that is being read; empty before its headers have ended."""
        return self._current_part.field_name

    def on_end(self) -> None:
        """Note the closing boundary."""
        self.complete = True

    def close(self) -> None:
        """Close every file, those of unfinished parts too."""
        for file in self._files_to_close_on_error:
            with suppress(OSError):  # what cannot be written out is not wanted any more
                file.close()


async def _from_first_boundary(chunks: AsyncIterator[bytes], content_type: str) -> AsyncGenerator[bytes, None]:
    """Leave out what may stand in front of the first part (RFC 2046, section 5.1.1), which Starlette refuses."""
    _, options = parse_options_header(content_type)
    line_end = b"\r\n"
    boundary = line_end + b"--" + options.get(b"boundary", b"")
    head: bytes | None = line_end  # as if a line had ended before the body
    async for chunk in chunks:
        if head is None:
            yield chunk
            continue
        head += chunk
        at = head.find(boundary, 0, _MOST_PREAMBLE_BYTES)
        if at >= 0 or len(head) > _MOST_PREAMBLE_BYTES:
            yield head[max(0, at) + len(line_end) :]
            head = None
    if head is not None:
        yield head.removeprefix(line_end)


async def _from_form(request: Request, share: Share) -> Upload:
    parser = _FormParser(
        request.headers,
        _from_first_boundary(share.counted(request.stream()), request.headers["content-type"]),
        max_files=1,
        max_fields=_MOST_FIELDS,
        max_part_size=_MOST_FIELD_BYTES,
    )
    parser.spool_max_size = max(1, share.in_memory)
    try:
        form = await parser.parse()
    except MultiPartException as error:
        # where a part is too long, the field that it belongs to
        if parser.field == "image" and "Part exceeded maximum size" in error.message:
            raise MissingImage(
                f"field 'image' has no file name, and more than the {_MOST_FIELD_BYTES} bytes of a field of text; give "
                'it one, such as filename="a.tif"'
            ) from error
        raise BrokenMultipart(
            f"the multipart body cannot be read, at field {parser.field[:40]!r}: {error.message} Send one file field "
            "'image', and parameters as fields without a file name"
        ) from error
    except (OSError, NoRoomForUpload):
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
    return Upload(image.file, fields, share, _without_folders(image.filename))


def _name_in(disposition: str) -> str | None:
    """File name in a header Content-Disposition (RFC 6266); None where it has none."""
    with suppress(UnicodeError):  # written as it is, where only ``filename*`` may have more than ASCII
        disposition = disposition.encode("latin-1").decode("utf-8")
    header = Message()
    header["Content-Disposition"] = disposition
    return _without_folders(header.get_filename())


def _without_folders(name: str | None) -> str | None:
    # some clients send the whole path; Windows' has both kinds of slash
    return re.split(r"[/\\]", name or "")[-1][:_MOST_OF_A_NAME] or None
