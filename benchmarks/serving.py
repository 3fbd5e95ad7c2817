"""Services to measure: one process for each backend and precision, where the package and the machine have it."""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import tifffile

from benchmarks.worker import LeftOut
from clients.demo import running_service
from service.bench import blobs

_TIMEOUT_S = 3600


@dataclass(frozen=True, slots=True)
class Row:
    """A backend and the precision that it shall compute in."""

    backend: str
    precision: str

    def __str__(self) -> str:
        return f"{self.backend}:{self.precision}"


ROWS = tuple(
    Row(backend, precision)
    for backend, precisions in {"cpu": ("fp32", "int8"), "openvino": ("fp32", "bf16", "int8")}.items()
    for precision in precisions
)
"""All that a CPU may have."""


def row(text: str) -> Row:
    """Read ``backend:precision``, as a type of an option."""
    backend, colon, precision = text.partition(":")
    if not (backend and colon and precision):
        raise argparse.ArgumentTypeError(f"{text!r} is no row; write backend:precision, such as openvino:bf16")
    return Row(backend, precision)


def measured_service(**settings: str) -> AbstractContextManager[str]:
    """Start a service that runs its net for every request, whatever came before; else as ``running_service``."""
    return running_service(UNET_REPEAT_MB="0", **settings)


def environment(package: Path, chosen: Row, cache: str) -> dict[str, str]:
    """Settings of a service that refuses nothing for want of time; measured speeds of tiles are kept in ``cache``."""
    return {
        "UNET_MODELS_DIR": str(package),
        "UNET_BACKEND": chosen.backend,
        "UNET_PRECISION": chosen.precision,
        "UNET_CACHE_DIR": cache,
        "UNET_DEADLINE_S": str(_TIMEOUT_S),
        "UNET_MAX_BACKLOG_S": str(_TIMEOUT_S),
    }


@contextmanager
def serving(package: Path, chosen: Row, cache: str) -> Iterator[httpx.Client]:
    """Serve one package in one backend and precision; yields a client that is ready to ask.

    Raises
    ------
    LeftOut
        Where package or machine do not have it; the message is the service's own.

    """
    settings = environment(package, chosen, cache)
    # asked before, in its own words: a service that is not ready keeps its reasons to its log
    check = subprocess.run(  # noqa: S603 - this interpreter and our own command
        [sys.executable, "-m", "service.cli", "check", str(package)],
        env=os.environ | settings,
        capture_output=True,
        text=True,
        check=False,
    )
    if check.returncode:
        raise LeftOut(check.stderr.strip().rpartition("\n")[2].removeprefix("unet-service: "))
    with (
        measured_service(**settings) as url,
        httpx.Client(base_url=url, timeout=_TIMEOUT_S) as client,
    ):
        yield client


def checked_receipt(response: httpx.Response, chosen: Row) -> Mapping[str, Any]:
    """Receipt of an answer.

    Raises
    ------
    LeftOut
        Where something else ran than was asked for.

    """
    receipt: Mapping[str, Any] = json.loads(response.raise_for_status().headers["X-UNet-Receipt"])
    if (receipt["backend"], receipt["precision"]) != (chosen.backend, chosen.precision):
        raise LeftOut(f"{chosen} was asked for, {receipt['provider']} ran in {receipt['precision']}")
    return receipt


def tiff(size: int, channels: int) -> bytes:
    """A square 16-bit TIFF of blobs."""
    buffer = io.BytesIO()
    if channels == 1:
        tifffile.imwrite(buffer, blobs(size))
    else:
        image_yxc = np.repeat(blobs(size)[..., np.newaxis], channels, axis=-1)
        tifffile.imwrite(buffer, image_yxc, photometric="minisblack", planarconfig="contig")
    return buffer.getvalue()
