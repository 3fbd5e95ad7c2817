"""What commands share: options of those that run a net in this process, and how they speak."""

from __future__ import annotations

import argparse
import sys
from typing import TextIO

from service.settings import Settings

_LOCAL = ("models_dir", "backend", "precision")


def add_local_options(command: argparse.ArgumentParser, *more: str) -> None:
    """Add the settings that matter to a command which runs a net itself, and ``more`` of them by field name."""
    for name in (*_LOCAL, *more):
        text = (Settings.model_fields[name].description or "").replace("%", "%%")
        command.add_argument(
            f"--{name.replace('_', '-')}", dest=name, metavar="VALUE", default=argparse.SUPPRESS, help=text
        )


def say(text: str, stream: TextIO | None = None) -> None:
    """Write one line to standard output, or to ``stream``."""
    (stream or sys.stdout).write(text + "\n")


def fail(text: str, status: int) -> int:
    """Say on standard error what went wrong; returns the exit status."""
    say(f"unet-service: {text}", sys.stderr)
    return status


def table(rows: list[tuple[str, ...]]) -> list[str]:
    """Lines of a table whose columns are as wide as they must be."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]
