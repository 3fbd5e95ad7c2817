"""Errors keep nothing of what was local where they passed, and still say where that was."""

from __future__ import annotations

import asyncio
import traceback
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from service.engine.tracebacks import clear_locals_of, errors_keep_nothing

pytestmark = pytest.mark.usefixtures("no_collector")


def fails(seen: list[weakref.ref[object]]) -> None:
    """Fail twice, each time beside an array, and with the first error in the second one's frame."""
    array = np.zeros(9)
    seen.append(weakref.ref(array))
    try:
        int("none")
    except ValueError as error:
        first = error
        raise KeyError(str(array[0])) from first


def test_an_error_of_a_coroutine_keeps_none_of_its_locals() -> None:
    seen: list[weakref.ref[object]] = []

    @errors_keep_nothing
    async def work() -> None:
        array = np.zeros(9)
        seen.append(weakref.ref(array))
        call = asyncio.ensure_future(asyncio.to_thread(fails, seen))  # it holds the error, and this frame holds it
        await call
        assert array.size

    async def scenario() -> KeyError:
        with pytest.raises(KeyError) as failed:
            await work()
        return failed.value

    error = asyncio.run(scenario())
    assert [each() for each in seen] == [None, None]
    assert [frame.name for frame in traceback.extract_tb(error.__traceback__)][-1] == "fails"
    assert isinstance(error.__cause__, ValueError)


def test_nor_does_one_of_a_thread_that_nobody_waits_for() -> None:
    seen: list[weakref.ref[object]] = []
    with ThreadPoolExecutor(1) as threads:
        call = threads.submit(fails, seen)
        call.add_done_callback(clear_locals_of)
    assert isinstance(call.exception(), KeyError)
    assert [each() for each in seen] == [None]
