"""The folder of jobs of a service that shares none."""

from __future__ import annotations

import secrets
import tempfile
from pathlib import Path


def temporary_path() -> Path:
    """Name a folder that nobody can foresee: where it is made may be everybody's."""
    try:
        folder = tempfile.gettempdir()
    except FileNotFoundError:
        folder = "/tmp"  # noqa: S108 - none can be written: the service is unready and says so
    return Path(folder, f"unet-jobs-{secrets.token_hex(8)}")
