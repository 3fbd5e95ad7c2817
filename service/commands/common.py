"""What commands share: options of those that run a net in this process, and how they speak."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import TextIO

from service.settings import Settings

_COMMANDS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # control characters but ends of lines and tabs
_LOCAL = ("models_dir", "backend", "precision")
_DAY_S = 86_400.0
UNHURRIED = {"deadline_s": _DAY_S, "max_backlog_s": _DAY_S, "rescan_s": 0.0, "repeat_mb": 0}
"""Settings of commands with an engine of their own: no image is refused for want of time, no package changes, and each
image comes once."""


def add_local_options(command: argparse.ArgumentParser, *more: str) -> None:
    """Add the settings that matter to a command which runs a net itself, and ``more`` of them by field name."""
    for name in (*_LOCAL, *more):
        text = (Settings.model_fields[name].description or "").replace("%", "%%")
        command.add_argument(
            f"--{name.replace('_', '-')}", dest=name, metavar="VALUE", default=argparse.SUPPRESS, help=text
        )


def say(text: str, stream: TextIO | None = None) -> None:
    """Write a line, or several, to standard output, or to ``stream``.

    What a terminal would obey, and what the stream cannot write, is escaped: names of files hold both.
    """
    to = stream or sys.stdout
    encoding = to.encoding or "utf-8"
    to.write(_COMMANDS.sub(_escaped, text).encode(encoding, "backslashreplace").decode(encoding) + "\n")


def shown(path: Path) -> str:
    """A path as it is said, on one line."""
    return re.sub(r"[\n\t]", _escaped, str(path))


def _escaped(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode()


def fail(text: str, status: int) -> int:
    """Say on standard error what went wrong; returns the exit status."""
    say(f"unet-service: {text}", sys.stderr)
    return status


def table(rows: list[tuple[str, ...]]) -> list[str]:
    """Lines of a table whose columns are as wide as they must be."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]
