"""An engine as the service starts it, without the service."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from service.engine.engine import Engine
from service.settings import Settings
from service.telemetry import Metrics


@asynccontextmanager
async def running(packages: Path, **settings: Any) -> AsyncIterator[Engine]:
    """Start an engine on the CPU that serves a folder of packages, and end it afterwards; settings by field name.

    Its nets have one thread where a test asks for no other number: they are tiny, and those of more wait busily.
    """
    engine = Engine(Settings(models_dir=packages, backend="cpu", **{"threads": 1, **settings}), Metrics())
    await engine.start()
    try:
        yield engine
    finally:
        await engine.stop()
