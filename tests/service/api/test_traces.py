"""Trace ids of W3C Trace Context: taken from what is valid by its letter, and told in problems and the log."""

from __future__ import annotations

import logging

import pytest

from service.telemetry import TRACE_ID
from tests.app_client import AppClient
from tests.problems import assert_problem

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"


class Traces(logging.Handler):
    """Keeps the trace of each event, which is known while it is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str | None] = []

    def emit(self, _: logging.LogRecord) -> None:
        self.seen.append(TRACE_ID.get())


def traces_of(client: AppClient, *parents: str) -> list[str | None]:
    """Return the trace in the problem and in the access log of a request with these headers."""
    traces, log = Traces(), logging.getLogger("unet.access")
    level = log.level
    log.addHandler(traces)
    log.setLevel(logging.INFO)
    try:
        answer = client.get("/models/none", headers=[("traceparent", parent) for parent in parents])
    finally:
        log.removeHandler(traces)
        log.setLevel(level)
    return [assert_problem(answer, 404, "unknown-model").get("trace_id"), *traces.seen]


@pytest.mark.parametrize(
    "parent",
    [
        f"00-{TRACE}-{PARENT}-01",
        f"00-{TRACE}-{PARENT}-ff",
        f"cc-{TRACE}-{PARENT}-01",
        f"cc-{TRACE}-{PARENT}-01-what-the-future-will-be-like",
    ],
)
def test_the_trace_of_a_valid_parent_is_told(client: AppClient, parent: str) -> None:
    assert traces_of(client, parent) == [TRACE, TRACE]


@pytest.mark.parametrize(
    "parents",
    [
        [],
        [""],
        [TRACE],
        [f"00-{TRACE}-{PARENT}"],
        [f"ff-{TRACE}-{PARENT}-01"],
        [f"0-{TRACE}-{PARENT}-01"],
        [f"00-{'0' * 32}-{PARENT}-01"],
        [f"00-{TRACE}-{'0' * 16}-01"],
        [f"00-{TRACE.upper()}-{PARENT}-01"],
        [f"00-{TRACE[1:]}-{PARENT}-01"],
        [f"00-{TRACE}-{PARENT}-1"],
        [f"00-{TRACE}-{PARENT}-01-more"],
        [f"cc-{TRACE}-{PARENT}-01.more"],
        [f"00-{TRACE}-{PARENT}-01", f"00-{TRACE}-{PARENT}-01"],
        [f"cc-{TRACE}-{PARENT}-01-more", f"cc-{TRACE}-{PARENT}-01"],
    ],
)
def test_an_invalid_parent_and_several_tell_no_trace(client: AppClient, parents: list[str]) -> None:
    assert traces_of(client, *parents) == [None, None]
