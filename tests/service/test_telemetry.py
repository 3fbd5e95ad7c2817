"""Log lines are JSON, one per event, with the request's id; text for people says the same."""

from __future__ import annotations

import json
import logging
import sys

from service.telemetry import REQUEST_ID, TRACE_ID, JsonFormatter, TextFormatter, fields


def record(message: str, *arguments: object, **values: object) -> logging.LogRecord:
    made = logging.LogRecord("unet.test", logging.INFO, __file__, 1, message, arguments, None)
    made.__dict__.update(fields(**values))
    return made


def test_an_event_is_one_line_of_json_with_its_fields_and_the_ids() -> None:
    token, trace_token = REQUEST_ID.set("abc"), TRACE_ID.set("4bf92f3577b34da6a3ce929d0e0e4736")
    line = JsonFormatter().format(record("read %d\nlines", 3, pixels=12, model=None))
    REQUEST_ID.reset(token)
    TRACE_ID.reset(trace_token)
    event = json.loads(line)
    assert "\n" not in line
    assert event.pop("time").endswith("+00:00")
    assert event == {
        "level": "info",
        "logger": "unet.test",
        "message": "read 3\nlines",
        "request_id": "abc",
        "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
        "pixels": 12,
    }


def test_a_traceback_is_a_field_of_its_event() -> None:
    failed = record("failed")
    try:
        raise ValueError("inside")
    except ValueError:
        failed.exc_info = sys.exc_info()
    line = JsonFormatter().format(failed)
    assert "\n" not in line
    assert "ValueError: inside" in json.loads(line)["exception"]


def test_text_shows_the_fields_behind_the_message() -> None:
    assert TextFormatter().format(record("done", pixels=12)).endswith("INFO    unet.test: done pixels=12")


def test_text_can_be_forged_by_nothing_that_a_client_sends() -> None:
    path = "/models/\n2026-11-30 FAKE\r\x1b[31m status=200"
    line = TextFormatter().format(record("no %s", "a\nb\x00é", path=path, status=404, name="größe"))
    assert line.endswith(
        r"unet.test: no a\nb\x00é"
        r' path="/models/\n2026-11-30 FAKE\r\u001b[31m status=200" status=404 name=größe'
    )
    assert line.isprintable()


def test_a_traceback_keeps_its_lines_in_text() -> None:
    failed = record("failed")
    try:
        raise ValueError("inside")
    except ValueError:
        failed.exc_info = sys.exc_info()
    assert "\nValueError: inside" in TextFormatter().format(failed)
