"""A process of its own that stays up and runs its job once whenever it is asked to, over a pipe.

The parent writes a line for each run; the child answers with one line of JSON, ``{"seconds": ...}``. Its first line
says what it is, or why it cannot run here.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

_LINE_BUFFERED = 1
_STOP_S = 20


class LeftOut(Exception):
    """Something that cannot be measured here; the message says what is missing, and what to do about it."""


@dataclass(frozen=True, slots=True)
class Job:
    """What a child runs."""

    what: str
    """One line for people."""
    run: Callable[[], object]
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Anything that the parent should know, JSON-able."""


@dataclass(frozen=True, slots=True)
class Worker:
    """The parent's end of a child that is ready."""

    what: str
    facts: Mapping[str, Any]
    _process: subprocess.Popen[str]

    def run(self) -> float:
        """Seconds that one run took, by the child's own clock.

        Raises
        ------
        RuntimeError
            Where the child ended.

        """
        if self._process.stdin is not None:
            self._process.stdin.write("run\n")
        answered = _read(self._process)
        if answered is None:
            raise RuntimeError(f"{self.what}: the process ended in the middle of a run; what it wrote stands above")
        return float(answered["seconds"])


@contextmanager
def working(module: str, arguments: Sequence[str], environment: Mapping[str, str]) -> Iterator[Worker]:
    """Run ``python -m module arguments`` until the end of the block; yields once it is ready.

    Raises
    ------
    LeftOut
        Where it says that it cannot run here, or ends before it is ready.

    """
    command = [sys.executable, "-m", module, *arguments]
    with subprocess.Popen(  # noqa: S603 - this interpreter and a module of ours
        command,
        env=os.environ | environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=_LINE_BUFFERED,
    ) as process:
        try:
            ready = _read(process)
            if ready is None:
                raise LeftOut(f"its process ended with exit code {process.wait()}; what it wrote stands above")
            if "left_out" in ready:
                raise LeftOut(ready["left_out"])
            yield Worker(ready["what"], ready["facts"], process)
        finally:
            if process.stdin is not None:
                process.stdin.close()  # which it takes for the end
            try:
                process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()


def _read(process: subprocess.Popen[str]) -> dict[str, Any] | None:
    """What the child says next; None where it has ended."""
    line = process.stdout.readline() if process.stdout is not None else ""
    return json.loads(line) if line else None


def answer(build: Callable[[], Job]) -> None:
    """The child's end: make the job ready, then run it once for every line that comes in."""
    # libraries print what they like: the pipe is ours alone, and what they print goes to standard error
    with os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=_LINE_BUFFERED) as pipe:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        try:
            job = build()
        except LeftOut as reason:
            _say(pipe, {"left_out": str(reason)})
            return
        _say(pipe, {"what": job.what, "facts": dict(job.facts)})
        for _ in sys.stdin:
            started = time.perf_counter()
            job.run()
            _say(pipe, {"seconds": time.perf_counter() - started})


def _say(pipe: Any, message: Mapping[str, Any]) -> None:  # noqa: ANN401 - a text file, whatever its class
    pipe.write(json.dumps(message) + "\n")
