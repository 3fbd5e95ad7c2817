"""The image of a request, from the body as it comes to a seekable file: raw, or field ``image`` of a multipart form."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
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
_NO_FILES = {errno.EMFILE, errno.ENFILE}
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.ENOENT, errno.EACCES, *_NO_FILES}
_UPLOADS_IN_MEMORY = 4  # of the largest size that may stay in memory


@dataclass(frozen=True, slots=True)
class Upload:
    """A received image, and the other fields of its form."""

    image: BinaryIO
    fields: Sequence[tuple[str, str]]
    """Name and text of each, in their order; a name may come more than once."""


class UploadRoom:
    """Room of all uploads together, unfinished ones too: in memory, and beyond it in the temporary folder.

    Files there have no name, so that nothing which looks into the folder sees them (Kubernetes' ``sizeLimit`` neither);
    they are counted here. What finds no room in memory goes to disk from its first byte.

    Parameters
    ----------
    spool_bytes
        Most of one upload in memory; four times as much is there for all.
    disk_bytes
        Most on disk.

    """

    def __init__(self, spool_bytes: int, disk_bytes: int) -> None:
        self.most_in_memory = spool_bytes
        self.most_on_disk = disk_bytes
        self.free_memory = _UPLOADS_IN_MEMORY * spool_bytes
        self.on_disk = 0

    @contextmanager
    def share(self, declared: int | None) -> Iterator[Share]:
        """Keep room for one upload.

        Parameters
        ----------
        declared
            Bytes of the body, None where the client does not say: then as much memory as one upload may have is kept.
            Disk is kept as the body grows, so that what was only declared takes no room from others.

        Raises
        ------
        NoRoomForUpload
            Where there is not enough for the whole body now.

        """
        wanted = self.most_in_memory if declared is None else declared
        in_memory = wanted if wanted <= min(self.most_in_memory, self.free_memory) else 0
        self.free_memory -= in_memory
        share = Share(self, in_memory)
        try:
            share.more_than_kept(declared or 0)
            yield share
        finally:
            self.free_memory += in_memory
            self.on_disk -= share.on_disk


@dataclass(slots=True)
class Share:
    """What one upload has of an :class:`UploadRoom`."""

    room: UploadRoom
    in_memory: int
    """Bytes that may stay in memory: all of the upload, or none."""
    on_disk: int = 0
    _received: int = 0

    def more_than_kept(self, size: int) -> int:
        """Bytes on disk that a body of ``size`` bytes needs beside those that are kept for it.

        Raises
        ------
        NoRoomForUpload
            Where other uploads hold them.

        """
        more = max(0, size - self.on_disk) if size > self.in_memory else 0
        if more and self.room.on_disk + more > self.room.most_on_disk:
            raise NoRoomForUpload(
                f"{self.room.on_disk >> 20} MiB of uploads are on disk and this one has {size} bytes or more, the "
                f"limit is {self.room.most_on_disk >> 20} MiB; try again in {NoRoomForUpload.retry_after_s} s, or "
                "raise UNET_UPLOAD_LIMIT_MB"
            )
        return more

    async def counted(self, chunks: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
        """Pass on a body, keeping room for what comes."""
        async for chunk in chunks:
            self._received += len(chunk)
            more = self.more_than_kept(self._received)
            self.room.on_disk += more
            self.on_disk += more
            yield chunk


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
            raise _no_room(f"the body of {length or 'unknown'} bytes", error) from error
        try:
            if forms and not is_form and not upload.image.tell():
                raise EmptyBody("the body has 0 bytes; send the image as the body, or as multipart field 'image'")
            yield upload
        finally:
            upload.image.close()


@asynccontextmanager
async def kept_beside(room: UploadRoom, size: int, chunks: AsyncIterator[bytes]) -> AsyncIterator[BinaryIO]:
    """Keep what an upload of ``size`` bytes is made into, as uploads are kept; closed at the end.

    Raises
    ------
    NoRoomForUpload
        Where uploads hold the room there is, or the temporary folder is full.

    """
    with room.share(size) as share:
        try:
            file = await _spooled(chunks, share)
        except OSError as error:
            if error.errno not in _NO_ROOM:
                raise
            raise _no_room(f"a tensor of {size} bytes", error) from error
        with file:
            yield file


def _no_room(what: str, error: OSError) -> NoRoomForUpload:
    remedy = "allow more open files (ulimit -n)" if error.errno in _NO_FILES else "give the folder more room"
    return NoRoomForUpload(
        f"{what} finds no room beside other uploads in the temporary folder: {error.strerror}; try again in "
        f"{NoRoomForUpload.retry_after_s} s, or {remedy}"
    )


async def _from_body(request: Request, share: Share) -> Upload:
    return Upload(await _spooled(request.stream(), share), ())


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


async def _from_form(request: Request, share: Share) -> Upload:
    parser = _FormParser(
        request.headers,
        share.counted(request.stream()),
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
    return Upload(image.file, fields)
