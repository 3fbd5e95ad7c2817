"""Programs that get a signal while their modules are imported."""

from __future__ import annotations


def signalled_while_importing(module: str, signal: str, program: str) -> str:
    """Script that runs a program's ``main``, and sends itself a signal where a module's import begins."""
    return f"""
import signal, sys
from {program}.__main__ import main

class Signalling:
    def find_spec(self, name, *_):
        if name == {module!r}:
            signal.raise_signal(signal.{signal})

sys.meta_path.insert(0, Signalling())
sys.exit(main())
"""
