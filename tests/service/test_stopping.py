"""SIGTERM before there is a server that could drain."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from service.interrupts import TERMINATED
from tests.importing import signalled_while_importing

WHILE_IMPORTING = signalled_while_importing("service.commands", "SIGTERM", "service")

WHILE_SETTING_UP = """
import signal, sys
from service import __main__, server

server.create_app = lambda _: signal.raise_signal(signal.SIGTERM)
sys.exit(__main__.main())
"""


def said(script: str, *arguments: str) -> tuple[int, str, str]:
    """Status, standard output and standard error."""
    switched_on = "import signal; signal.signal(signal.SIGTERM, signal.SIG_DFL)"
    command = [sys.executable, "-c", f"{switched_on}\n{script}", *arguments]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("UNET_")}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=120)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("script", [WHILE_IMPORTING, WHILE_SETTING_UP], ids=["modules", "application"])
def test_a_service_that_is_stopped_while_it_starts_ends_with_0(script: str) -> None:
    assert said(script, "serve", "--port", "0") == (0, "", "")


def test_a_command_that_is_stopped_does_not_say_that_it_is_done() -> None:
    assert said(WHILE_IMPORTING, "segment", "image.png") == (TERMINATED, "", "")


def test_who_has_switched_the_signal_off_is_not_stopped_by_it() -> None:
    switched_off = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n{WHILE_IMPORTING}"
    status, out, err = said(switched_off, "serve", "--help")
    assert (status, err) == (0, "")
    assert out.startswith("usage: unet-service serve")
