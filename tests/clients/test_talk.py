"""Scripts for lab software are one file each, so each has its own copy of the talk with the service: all are alike."""

from __future__ import annotations

import ast
import difflib
import email
import io
import urllib.error
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest

from tests.clients.conftest import CLIENTS

ALIKE = "micromanager/segment_unet.py"
COPIED = ("_EXAMPLE", "_SILENCE_S", "_LONGEST_S", "_HUNG_UP", "_Line", "_ask", "_shown", "_reason")
NO_RECEIPT = (
    "-def _ask(url: str, path: str, body: bytes) -> tuple[bytes, str]:",
    "+def _ask(url: str, path: str, body: bytes) -> bytes:",
    "-                return found, str(receipt)",
    "+                return found",
)
OTHERWISE: Mapping[str, Sequence[str]] = {
    "cellprofiler/segmentunet.py": NO_RECEIPT,
    "omero/segment_unet.py": (
        *NO_RECEIPT[:2],
        '-                    raise Refused(f"{shown} {page}")',
        *NO_RECEIPT[2:3],
        '+                    raise Unserved(f"{shown} {page}")',
        *NO_RECEIPT[3:],
        "-                    raise Refused(_reason(refusal, shown)) from None",
        "+                    kind = Unserved if refusal.code in _OF_ALL_IMAGES else Refused",
        "+                    raise kind(_reason(refusal, shown)) from None",
        '-                raise Refused(f"no service answers at {shown}: {why}") from None',
        '+                raise Unserved(f"no service answers at {shown}: {why}") from None',
    ),
    "napari/segment_unet.py": (
        "+    def __init__(self) -> None:",
        "+        super().__init__()",
        "+        self.is_cut = threading.Event()",
        "+        self._socket: socket.socket | None = None",
        "+    def cut(self) -> None:",
        "+        self.is_cut.set()",
        "+        if self._socket is not None:",
        "+            with suppress(OSError):  # it has ended by itself",
        "+                # not an SSLSocket's own shutdown, which takes the encryption away from under who reads",
        "+                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)",
        "+    def heed(self, seconds: float = 0.0) -> None:",
        "+        if self.is_cut.wait(seconds):",
        "+            raise _Cancelled",
        "+        line = self",
        "+            def connect(self) -> None:",
        "+                self.timeout = _CONNECT_S",
        "+                super().connect()",
        "+                self.sock.settimeout(_SILENCE_S)",
        "+                line._socket = self.sock",
        "+                if line.is_cut.is_set():",
        "+                    line.cut()",
        "-def _ask(url: str, path: str, body: bytes) -> tuple[bytes, str]:",
        "+def _ask(url: str, path: str, body: bytes, line: _Line) -> Generator[str, None, bytes]:",
        "-    opener = urllib.request.build_opener(_Line)",
        "+    opener = urllib.request.build_opener(line)",
        '+        yield f"{shown} is at work"',
        "-                with opener.open(request, timeout=_SILENCE_S) as answer:",
        "+                with opener.open(request) as answer:",
        "-                return found, str(receipt)",
        "+                return found",
        "-                time.sleep(pause)",
        '+                yield f"{shown} is busy, and is asked again in {pause:g} s"',
        "+            line.heed()",
        "-            time.sleep(0.25 * 2**broke_off)",
        "+            pause = 0.25 * 2**broke_off",
        "+            line.heed()",
        "-            time.sleep(pause)",
        "+        line.heed(pause)",
    ),
}
"""By script, lines of the talk that another one has in the place of those of :data:`ALIKE`."""


def talk(path: str) -> Iterator[tuple[ast.stmt, list[str]]]:
    """The copied parts of a script, and the lines of each, without docstrings."""
    text = (CLIENTS / path).read_text()
    for part in ast.parse(text).body:
        match part:
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name) | ast.Assign(targets=[ast.Name(id=name)]):
                if name not in COPIED:
                    continue
            case _:
                continue
        lines = dict(enumerate(text.splitlines(), 1))
        for node in ast.walk(part):
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node):
                for number in range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1):
                    del lines[number]
        yield part, [lines[number] for number in range(part.lineno, (part.end_lineno or 0) + 1) if lines.get(number)]


@pytest.mark.parametrize("path", OTHERWISE)
def test_every_copy_of_the_talk_is_alike_but_for_what_is_listed(path: str) -> None:
    first, other = ([line for _, lines in talk(each) for line in lines] for each in (ALIKE, path))
    compared = difflib.unified_diff(first, other, n=0, lineterm="")
    assert [line for line in compared if not line.startswith(("---", "+++", "@@"))] == list(OTHERWISE[path])


@pytest.mark.parametrize("path", [ALIKE, *OTHERWISE])
@pytest.mark.parametrize("body", [b"<h1>no</h1>", b"{}", b"[]", b'{"title": "no"}'])
def test_a_problem_of_a_proxy_that_says_no_more_is_told_as_it_is(path: str, body: bytes) -> None:
    *_, (shown, _), (reason, _) = talk(path)
    given: dict[str, Any] = {}
    exec("import json, re, urllib.error\nfrom contextlib import suppress", given)  # noqa: S102 - what the scripts import
    exec(compile(ast.Module([shown, reason], []), path, "exec"), given)  # noqa: S102 - the script's own
    headers = email.message_from_string("Content-Type: application/problem+json\n\n")
    refusal = urllib.error.HTTPError("http://here", 502, "Bad Gateway", headers, io.BytesIO(body))
    assert given["_reason"](refusal, "http://here") == f"the service answers 502: {body.decode()}"
