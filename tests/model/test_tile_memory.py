"""What a tile takes while the net runs keeps within what plans are made with."""

from __future__ import annotations

import subprocess
import sys

import pytest

from model.package import ZOO, read_package
from model.session import (
    Backend,
    Precision,
    SessionOptions,
    activation_bytes_per_pixel,
    has_bf16,
    open_session,
)

_EDGE_PX = 1212
_MEASURE = """
import sys
import numpy as np
from model.package import ZOO, read_package
from model.session import SessionOptions, open_session
from tests.memory import peak_kib, reset_peak

backend, precision, edge = sys.argv[1:]
session = open_session(read_package(ZOO / "nuclei"), SessionOptions(backend, precision, threads=2))
noise = np.random.default_rng(0).random((1, 1, int(edge), int(edge)), dtype=np.float32)
session.run(noise[..., :252, :252])
reset_peak()
before_kib = peak_kib()
session.run(noise)
print((peak_kib() - before_kib) * 1024)
"""


_RUNS: list[tuple[Backend, Precision]] = [("cpu", "int8"), ("openvino", "int8")]
if has_bf16("openvino"):
    _RUNS.append(("openvino", "bf16"))


@pytest.mark.parametrize(("backend", "precision"), _RUNS)
def test_a_tile_takes_no_more_than_plans_expect(backend: Backend, precision: Precision) -> None:
    command = [sys.executable, "-c", _MEASURE, backend, precision, str(_EDGE_PX)]
    measured = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    package = read_package(ZOO / "nuclei")
    session = open_session(package, SessionOptions(backend, precision, threads=2))
    expected = activation_bytes_per_pixel(package.spec, session) * _EDGE_PX**2
    assert 0.5 * expected < measured < expected
