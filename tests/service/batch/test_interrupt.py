"""An interrupt while the packages load: said in one line, with no word of what it broke off."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.images import disc, png

LOADING = """
import signal, sys, threading
from service import cli
from service.engine import engine

ended = threading.Event()

def load(*_):
    signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
    ended.wait(60)
    raise OSError("nobody waits for it")

engine.load_registry = load
status = cli.main(sys.argv[1:])
ended.set()
sys.exit(status)
"""


@pytest.mark.skipif(os.name == "nt", reason="no signals to a thread there")
def test_an_interrupt_while_packages_load_is_said_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(disc(60)))
    command = [sys.executable, "-c", LOADING, "segment", str(tmp_path / "a.png"), "--out", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (130, "unet-service: interrupted\n")
