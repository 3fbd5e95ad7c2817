"""How much of many uploads is in memory and on disk at a time."""

from __future__ import annotations

import asyncio
import errno
import os
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
from starlette.requests import Request
from starlette.types import Message

from service.api.upload import Upload, received
from service.api.upload_room import UploadRoom
from service.request_errors import EmptyBody, NoRoomForUpload
from service.settings import Settings

SPOOL = 1000
ROOM = 10_000


def upload(body: bytes, *, form: bool = False, declared: bool = True) -> Request:
    """Return a request whose body comes in two pieces."""
    headers = []
    if form:
        head = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n'
        body = head + body + b"\r\n--x--\r\n"
        headers.append((b"content-type", b"multipart/form-data; boundary=x"))
    if declared:
        headers.append((b"content-length", str(len(body)).encode()))
    half = len(body) // 2
    pieces = [(body[half:], False), (body[:half], True)]

    async def receive() -> Message:
        piece, more = pieces.pop()
        return {"type": "http.request", "body": piece, "more_body": more}

    return Request({"type": "http", "method": "POST", "path": "/segment", "headers": headers}, receive)


def on_disk(received_upload: Upload) -> bool:
    rolled: bool = received_upload.image._rolled  # type: ignore[attr-defined]
    return rolled


@pytest.mark.parametrize("form", [False, True])
@pytest.mark.parametrize("declared", [False, True])
def test_uploads_beyond_the_memory_of_all_go_to_disk_until_others_end(form: bool, declared: bool) -> None:
    async def places() -> list[bool]:
        room = UploadRoom(SPOOL, ROOM)
        async with AsyncExitStack() as stack:
            held = [
                await stack.enter_async_context(
                    received(upload(b"i" * 850, form=form, declared=declared), Settings(), room)
                )
                for _ in range(6)
            ]
            found = [on_disk(one) for one in held]
            assert all(one.image.seek(0) == 0 and one.image.read() == b"i" * 850 for one in held)
        async with received(upload(b"i" * 850, form=form, declared=declared), Settings(), room) as later:
            return [*found, on_disk(later)]

    assert asyncio.run(places()) == [False, False, False, False, True, True, False]


@pytest.mark.parametrize(("size", "expected"), [(SPOOL, False), (SPOOL + 1, True)])
@pytest.mark.parametrize("declared", [False, True])
def test_an_upload_is_in_memory_up_to_its_own_limit(size: int, expected: bool, declared: bool) -> None:
    async def place() -> bool:
        async with received(upload(b"i" * size, declared=declared), Settings(), UploadRoom(SPOOL, ROOM)) as one:
            return on_disk(one)

    assert asyncio.run(place()) is expected


def test_room_is_given_back_by_uploads_that_fail() -> None:
    async def fail(room: UploadRoom) -> None:
        async with received(upload(b"", declared=False), Settings(), room):
            raise NotImplementedError

    shared = UploadRoom(SPOOL, ROOM)
    for _ in range(10):
        with pytest.raises(EmptyBody):
            asyncio.run(fail(shared))
    with shared.share(None) as share:
        assert share.in_memory == SPOOL


@pytest.mark.parametrize("form", [False, True])
@pytest.mark.parametrize("declared", [False, True])
def test_uploads_beyond_the_room_on_disk_are_told_to_come_back_until_others_end(form: bool, declared: bool) -> None:
    async def try_it() -> None:
        room = UploadRoom(0, ROOM)
        async with AsyncExitStack() as stack:
            for _ in range(4):
                await stack.enter_async_context(
                    received(upload(b"i" * 2200, form=form, declared=declared), Settings(), room)
                )
            with pytest.raises(NoRoomForUpload, match=r"0 MiB of uploads are on disk .* UNET_UPLOAD_LIMIT_MB"):
                await stack.enter_async_context(
                    received(upload(b"i" * 2200, form=form, declared=declared), Settings(), room)
                )
        assert room.on_disk == 0
        async with received(upload(b"i" * 2200, form=form, declared=declared), Settings(), room) as one:
            assert on_disk(one)
            assert room.on_disk >= 2200

    asyncio.run(try_it())


def test_what_is_only_declared_takes_no_room_from_others() -> None:
    async def try_it() -> None:
        room = UploadRoom(0, ROOM)
        with room.share(ROOM) as idle, room.share(ROOM):
            async with received(upload(b"i" * 2200), Settings(), room):
                assert room.on_disk == 2200
                with pytest.raises(NoRoomForUpload, match="has 10000 bytes or more"), room.share(ROOM):
                    pytest.fail("it cannot be received whole")

            async def body() -> AsyncIterator[bytes]:
                yield b"i" * ROOM

            assert [len(chunk) async for chunk in idle.counted(body())] == [ROOM]
            with pytest.raises(NoRoomForUpload):
                await received(upload(b"i"), Settings(), room).__aenter__()
        assert room.on_disk == 0

    asyncio.run(try_it())


def test_jobs_leave_half_of_the_room_to_uploads_that_somebody_waits_for_but_one_alone_may_have_all() -> None:
    async def try_it() -> None:
        room = UploadRoom(0, ROOM)
        other = UploadRoom(SPOOL, ROOM)
        async with (
            received(upload(b"i" * 10), Settings(), other) as in_memory,
            received(upload(b"i" * 9000), Settings(), other) as alone,
        ):
            await in_memory.give_to_job()
            await alone.give_to_job()
            assert (on_disk(in_memory), other.on_disk) == (False, 9000)
        async with AsyncExitStack() as stack:
            for _ in range(2):
                one = await stack.enter_async_context(received(upload(b"i" * 2400), Settings(), room))
                await one.give_to_job()
            async with received(upload(b"i" * 300), Settings(), room) as third:
                with pytest.raises(
                    NoRoomForUpload, match=r"2 jobs have 0 MiB .* this one has 300 bytes, jobs may have half of 0 MiB"
                ):
                    await third.give_to_job()
            async with received(upload(b"i" * 5000), Settings(), room) as waited_for:
                assert waited_for.image.read() == b""
        async with received(upload(b"i" * 9000), Settings(), room) as later:
            await later.give_to_job()
        assert (room.on_disk, room.jobs) == (0, set())

    asyncio.run(try_it())


@pytest.mark.parametrize("form", [False, True])
@pytest.mark.parametrize("declared", [False, True])
def test_jobs_leave_half_of_the_memory_and_go_to_disk(form: bool, declared: bool) -> None:
    async def try_it() -> None:
        room = UploadRoom(SPOOL, ROOM)
        async with AsyncExitStack() as stack:
            jobs = []
            for _ in range(4):
                one = await stack.enter_async_context(
                    received(upload(b"i" * 850, form=form, declared=declared), Settings(), room)
                )
                await one.give_to_job()
                jobs.append(one)
            assert [on_disk(one) for one in jobs] == [False, False, True, True]
            assert room.free_memory >= 2 * SPOOL
            assert room.on_disk >= 2 * 850
            assert all(one.image.seek(0) == 0 and one.image.read() == b"i" * 850 for one in jobs)
        assert (room.free_memory, room.on_disk) == (4 * SPOOL, 0)

    asyncio.run(try_it())


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENOSPC, "No space left on device; try again in 5 s, or give the folder more room"),
        (errno.EFBIG, "File too large; try again in 5 s, or allow larger files (ulimit -f)"),
        (errno.EMFILE, "Too many open files; try again in 5 s, or allow more open files (ulimit -n)"),
    ],
)
def test_what_the_temporary_folder_refuses_is_told_with_its_own_remedy(
    monkeypatch: pytest.MonkeyPatch, number: int, remedy: str
) -> None:
    def refusing(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    async def scenario() -> None:
        async with received(upload(b"i" * 2 * SPOOL), Settings(), UploadRoom(SPOOL, ROOM)):
            pytest.fail("there was room")

    monkeypatch.setattr("tempfile.TemporaryFile", refusing)
    with pytest.raises(NoRoomForUpload, match=re.escape(remedy)):
        asyncio.run(scenario())


def test_what_results_of_jobs_take_of_the_temporary_folder_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def refusing(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    async def scenario() -> None:
        async with received(upload(b"i" * 2 * SPOOL), Settings(), UploadRoom(SPOOL, ROOM, lambda: 7 << 20)):
            pytest.fail("there was room")

    monkeypatch.setattr("tempfile.TemporaryFile", refusing)
    with pytest.raises(NoRoomForUpload, match=r"and 7 MiB of results of jobs .*fetch and delete jobs.* UNET_JOBS_DIR"):
        asyncio.run(scenario())
