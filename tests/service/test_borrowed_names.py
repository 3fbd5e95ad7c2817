"""Names inside uvicorn and Starlette that the service overrides or uses: a version may lose one without a word."""

from __future__ import annotations

import ast
import asyncio
import inspect
import textwrap
from collections.abc import AsyncGenerator, Iterator

import pytest
import uvicorn
from starlette.datastructures import Headers
from starlette.formparsers import MultiPartParser
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from service.api.upload import _FormParser
from service.protocol import LimitedProtocol
from service.server import Server


def attributes(of: type, *names: str, stored: bool = False) -> set[str]:
    """Attributes of variables of some names in the source of a class: those that are set, or all."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(of)))
    return {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in names
        if not stored or isinstance(node.ctx, ast.Store)
    }


def borrowed(ours: type) -> set[str]:
    """What a class of ours asks of itself and does not have from itself."""
    own = {name for name in attributes(ours, "self", stored=True) if name.startswith("_")}
    return attributes(ours, "self") - own - set(vars(ours))


async def nobody(scope: Scope, receive: Receive, send: Send) -> None:
    raise AssertionError(scope, receive, send)


@pytest.fixture
def protocol() -> Iterator[HttpToolsProtocol]:
    """uvicorn's own, at the first bytes of a request."""
    loop = asyncio.new_event_loop()
    began = HttpToolsProtocol(uvicorn.Config(nobody, log_config=None), ServerState(), {}, loop)
    began.on_message_begin()
    yield began
    loop.close()


@pytest.mark.parametrize(
    ("base", "ours", "names"),
    [
        (
            HttpToolsProtocol,
            LimitedProtocol,
            "connection_made connection_lost eof_received shutdown send_400_response data_received "
            "on_response_complete on_message_begin on_headers_complete on_body on_message_complete "
            "_unsupported_upgrade_warning",
        ),
        (MultiPartParser, _FormParser, "on_end"),
        (uvicorn.Server, Server, "startup handle_exit on_tick"),
    ],
    ids=["protocol", "form", "server"],
)
def test_what_is_overridden_is_there(base: type, ours: type, names: str) -> None:
    overridden = set(names.split())
    assert {name for name in set(vars(ours)) & set(dir(base)) if not name.startswith("__")} == overridden


def test_what_the_protocol_asks_of_uvicorn_is_there(protocol: HttpToolsProtocol) -> None:
    asked = borrowed(LimitedProtocol)
    assert {"_unset_keepalive_if_required", "timeout_keep_alive_task", "pipeline", "flow", "cycle"} <= asked
    assert asked <= set(dir(protocol))


def test_what_is_asked_of_requests_is_there() -> None:
    asked = attributes(LimitedProtocol, "cycle", "broken", "following")
    assert {"disconnected", "message_event", "response_started", "response_complete"} <= asked
    assert asked <= attributes(RequestResponseCycle, "self", stored=True)


def test_what_a_form_asks_of_starlette_is_there() -> None:
    async def nothing() -> AsyncGenerator[bytes, None]:
        yield b""

    parser = MultiPartParser(Headers({}), nothing())
    asked = borrowed(_FormParser)
    assert {"_current_part", "_files_to_close_on_error"} <= asked
    assert asked <= set(dir(parser))
    assert parser._current_part.field_name == ""
    assert parser._files_to_close_on_error == []
