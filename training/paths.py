"""Paths that a command is given."""

from __future__ import annotations

import argparse
from pathlib import Path


def given_path(named: str) -> Path:
    """Path that a command is given; an empty one, of a variable that is not set perhaps, is not the current folder.

    Raises
    ------
    argparse.ArgumentTypeError
        Where it is empty.

    """
    if not named:
        raise argparse.ArgumentTypeError("the path is empty; name a file or folder ('.' is the current one)")
    return Path(named)
