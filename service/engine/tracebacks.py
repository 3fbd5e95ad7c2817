"""What an error keeps in memory: its traceback holds each frame that it went through, and a frame all of its locals.

Where one of these leads back to the error, as a future does that failed with it, arrays of its request would stay until
Python's garbage collector looks for cycles, which may take minutes.
"""

from __future__ import annotations

import traceback
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from functools import wraps
from typing import Any, ParamSpec, TypeVar

_P = ParamSpec("_P")
_T = TypeVar("_T")


def clear_locals(error: BaseException) -> None:
    """Let go of what was local where an error, and those that led to it, passed; frames that still run keep theirs.

    The traceback stays, for the log.
    """
    seen: set[BaseException] = set()
    errors = [error]
    while errors:
        each = errors.pop()
        seen.add(each)
        traceback.clear_frames(each.__traceback__)
        errors += [cause for cause in (each.__cause__, each.__context__) if cause and cause not in seen]


def clear_locals_of(call: Future[Any]) -> None:
    """Do so with the error of a call in a thread that has ended, where it has one; a callback of futures."""
    if not call.cancelled() and (error := call.exception()):
        clear_locals(error)


def errors_keep_nothing(function: Callable[_P, Awaitable[_T]]) -> Callable[_P, Awaitable[_T]]:
    """Have the errors of a coroutine function keep nothing of what was local to it, or to what it called."""

    @wraps(function)
    async def call(*arguments: _P.args, **named: _P.kwargs) -> _T:
        try:
            return await function(*arguments, **named)
        except BaseException as error:
            clear_locals(error)
            raise

    return call
