"""Ctrl-C while ``unet-train`` is still imported, and right after."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.importing import signalled_while_importing

ENVIRONMENT = {**os.environ, "GLIBC_TUNABLES": ""}  # set, so that no command starts anew to set it

WHILE_IMPORTING = signalled_while_importing("torch", "SIGINT", "training")

IN_A_COMMAND = """
import signal, sys, types
from training import __main__

plan = types.ModuleType("training.commands.plan")
plan.declare = lambda parser: parser.set_defaults(run=lambda _: signal.raise_signal(signal.SIGINT))
sys.modules[plan.__name__] = plan
sys.exit(__main__.main())
"""


def said(script: str, *arguments: str) -> tuple[int, str, str]:
    """Status, standard output and standard error."""
    command = [sys.executable, "-c", script, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=ENVIRONMENT)
    return done.returncode, done.stdout, done.stderr


def test_an_interrupt_while_modules_are_imported_is_said_and_nothing_else() -> None:
    assert said(WHILE_IMPORTING, "plan") == (130, "", "unet-train: interrupted\n")


def test_an_interrupt_of_a_command_is_its_own_affair() -> None:
    assert said(IN_A_COMMAND, "plan") == (130, "", "\ninterrupted\n")


def test_the_end_of_the_terminal_is_an_interrupt() -> None:
    hung_up = IN_A_COMMAND.replace("raise_signal(signal.SIGINT)", "raise_signal(signal.SIGHUP)")
    as_by_default = hung_up.replace("sys.exit", "signal.signal(signal.SIGHUP, signal.SIG_DFL)\nsys.exit")
    assert said(as_by_default, "plan") == (130, "", "\ninterrupted\n")
    by_nohup = hung_up.replace("sys.exit", "signal.signal(signal.SIGHUP, signal.SIG_IGN)\nsys.exit")
    assert said(by_nohup, "plan") == (0, "", "")


def test_interrupts_that_are_switched_off_stay_so() -> None:
    switched_off = f"import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n{WHILE_IMPORTING}"
    status, out, err = said(switched_off, "plan", "--help")
    assert (status, err) == (0, "")
    assert out.startswith("usage: unet-train plan")
