"""Nets that reduce their own output, as those on GPUs do, answer byte for byte as others."""

from __future__ import annotations

import asyncio
import io
import itertools
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from model import backends
from model.label_rule import LabelRule
from service.engine.engine import Engine
from service.engine.request import SegmentRequest
from service.formats import OutputKind
from service.settings import Settings
from service.telemetry import Metrics
from tests.packages import write_tiny_package

RULES = {
    "components": LabelRule(fill_holes=True, connectivity=2),
    "watershed": LabelRule(method="watershed", seed_threshold=0.8, min_area_px=3),
}
WANTED: tuple[tuple[OutputKind, float | None], ...] = (
    ("mask", None),
    ("mask", 0.3),
    ("labels", None),
    ("labels", 0.7),
    ("probabilities", None),
)
REQUESTS = [
    SegmentRequest(model=name, output=output, format="npy", threshold=threshold, mirror=mirror)
    for name, (output, threshold), mirror in itertools.product(RULES, WANTED, (False, True))
]


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packages")
    for name, rule in RULES.items():
        write_tiny_package(folder, name=name, label_rule=rule)
    return folder


def answers(packages: Path, *, reducing: bool) -> list[bytes]:
    """Answers to all requests, sent at the same time."""
    rng = np.random.default_rng(3)
    image = (ndimage.gaussian_filter(rng.random((150, 230)), 3) * 60000).astype(np.uint16)
    buffer = io.BytesIO()
    np.save(buffer, image)

    async def scenario() -> list[bytes]:
        settings = Settings(
            models_dir=packages, backend="cpu", threads=1, default_model="components", memory_budget_mb=128
        )
        engine = Engine(settings, Metrics())
        await engine.start()
        try:
            for loaded in engine.models:
                assert (loaded.session.evidence is not None) == reducing
            sent = [engine.segment(io.BytesIO(buffer.getvalue()), request) for request in REQUESTS]
            return [answer.body.read() for answer in await asyncio.gather(*sent)]
        finally:
            await engine.stop()

    return asyncio.run(scenario())


def test_reduced_answers_are_those_of_probabilities(packages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = answers(packages, reducing=False)
    monkeypatch.setattr(backends, "GPU_BACKENDS", frozenset({"cpu"}))
    monkeypatch.setattr(backends, "provider_options", lambda *_: {})
    assert answers(packages, reducing=True) == expected
    different = {body for body, request in zip(expected, REQUESTS, strict=True) if not request.mirror}
    assert len(different) == 2 + 4 + 1, "both packages have the same masks and probabilities"
