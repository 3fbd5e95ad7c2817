"""What the net gave for an image serves later requests for it: byte for byte the answers of nets that run again."""

from __future__ import annotations

import asyncio
import gc
import io
import itertools
import shutil
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import ndimage

from model.errors import InferenceFailed
from model.label_rule import LabelRule
from service.engine.engine import Engine
from service.engine.request import Answer, SegmentRequest
from service.engine.stages import demand
from service.engine.stages.needs import Needs
from service.engine.stages.progress import Progress
from service.formats import OutputKind
from tests.engines import running
from tests.images import tiff
from tests.live import wait_until
from tests.packages import write_tiny_package

LABELS = SegmentRequest(output="labels", format="npy")
OUTPUTS: tuple[OutputKind, ...] = ("mask", "labels", "probabilities")
RULES = {
    "components": LabelRule(fill_holes=True, connectivity=2),
    "watershed": LabelRule(method="watershed", seed_threshold=0.8, min_area_px=3),
}


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packages")
    for name, rule in RULES.items():
        write_tiny_package(folder, name=name, label_rule=rule)
    return folder


def image(seed: int = 3, shape: tuple[int, ...] = (150, 230)) -> bytes:
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).random(shape), 3)
    return tiff((noise * 60000).astype(np.uint16), photometric="minisblack")


def answers(
    packages: Path, asked: Sequence[tuple[bytes, SegmentRequest]], *, repeat_mb: int, **settings: Any
) -> tuple[list[Answer], int]:
    """Answers to requests one after the other, and how often a net ran."""

    async def scenario() -> tuple[list[Answer], int]:
        given = {"memory_budget_mb": 256, **settings}
        async with running(packages, repeat_mb=repeat_mb, **given) as engine:
            ran = counted(engine)
            found = [await engine.segment(io.BytesIO(file), request) for file, request in asked]
            return found, sum(ran)

    return asyncio.run(scenario())


def counted(engine: Engine) -> list[int]:
    """Fill the list that is returned with the pixels of each batch of the nets that an engine serves."""
    ran: list[int] = []
    for model in engine.models:
        add = model.throughput.add

        def noting(pixels: int, seconds: float, add: Any = add) -> None:
            ran.append(1)
            add(pixels, seconds)

        model.throughput.add = noting  # type: ignore[method-assign]
    return ran


def bodies(found: Sequence[Answer]) -> list[bytes]:
    return [answer.body.read() for answer in found]


def is_repeat(answer: Answer) -> bool:
    repeat = "recall" in answer.stages_ms
    assert repeat == ("inference" not in answer.stages_ms)
    return repeat


def variations() -> Iterator[SegmentRequest]:
    for model, output in itertools.product(RULES, OUTPUTS):
        first = SegmentRequest(model=model, output=output, format="npy")
        for ours in (first, replace(first, mirror=True), replace(first, scale=0.7), replace(first, auto_scale=True)):
            pixel_size = (0.4, 0.4) if ours.auto_scale else None
            yield replace(ours, pixel_size_um=pixel_size)


def test_every_answer_is_the_one_of_a_net_that_runs(packages: Path) -> None:
    changes: list[dict[str, Any]] = [{}, {"format": "tiff"}, {"threshold": 0.55}, {"min_area": 9}, {"min_score": 0.6}]
    asked = [(image(), replace(first, **change)) for first in variations() for change in changes]
    again, ran = answers(packages, asked, repeat_mb=16)
    anew, ran_anew = answers(packages, asked, repeat_mb=0)
    assert bodies(again) == bodies(anew)
    assert [answer.receipt for answer in again] == [answer.receipt for answer in anew]
    assert not any(map(is_repeat, anew))
    repeated = [
        (request.output, is_repeat(answer))
        for (_, request), answer in zip(asked, again, strict=True)
        if request != replace(request, threshold=None, min_area=None, min_score=None, format="npy")
    ]
    assert ("labels", False) not in repeated
    assert ("probabilities", False) not in repeated
    assert ran < ran_anew / 2


def test_a_mask_is_made_of_what_labels_were_made_of(packages: Path) -> None:
    for threshold in (None, 0.55):
        mask = replace(LABELS, output="mask", threshold=threshold)
        again, _ = answers(packages, [(image(), LABELS), (image(), mask)], repeat_mb=16)
        anew, _ = answers(packages, [(image(), mask)], repeat_mb=0)
        assert is_repeat(again[1])
        assert bodies(again[1:]) == bodies(anew)


@pytest.mark.parametrize(
    "change",
    [
        {"user": "somebody else"},
        {"model": "watershed"},
        {"mirror": True},
        {"scale": 0.5},
        {"auto_scale": True},
        {"pixel_size_um": (0.4, 0.4), "auto_scale": True},
        {"axes": "ZYX"},
        {"channel": 0},
        {"output": "probabilities"},
    ],
)
def test_what_the_net_was_not_asked_for_before_runs(packages: Path, change: dict[str, Any]) -> None:
    file = image(shape=(3, 64, 64)) if "axes" in change else image()
    first = replace(LABELS, axes="CYX" if "axes" in change else None, channel=0 if "axes" in change else None)
    first = replace(first, pixel_size_um=(0.4, 0.4) if "auto_scale" in change else None)
    second = replace(first, **change)
    if "axes" in change:
        second = replace(second, channel=None)
    found, _ = answers(packages, [(file, first), (file, second), (file, second)], repeat_mb=16)
    assert [is_repeat(answer) for answer in found] == [False, False, True]


def test_another_image_runs(packages: Path) -> None:
    found, _ = answers(packages, [(image(seed), LABELS) for seed in (1, 2, 1, 2)], repeat_mb=16)
    assert [is_repeat(answer) for answer in found] == [False, False, True, True]
    one, other, *again = bodies(found)
    assert one != other
    assert again == [one, other]


def test_a_stack_is_kept_whole_or_not_at_all(packages: Path) -> None:
    # a plane takes 0.36 MB, and 1.05 MB are kept
    asked = [(image(shape=(planes, 300, 300)), LABELS) for planes in (2, 2, 3, 3)]
    found, _ = answers(packages, asked, repeat_mb=1)
    assert [is_repeat(answer) for answer in found] == [False, True, False, False]
    one, again, *_ = bodies(found)
    assert one == again


def test_what_was_asked_for_least_lately_goes_first(packages: Path) -> None:
    # two of these are kept
    asked = [(image(seed, (300, 300)), LABELS) for seed in (0, 1, 0, 2, 0, 2, 1)]
    found, _ = answers(packages, asked, repeat_mb=1)
    assert [is_repeat(answer) for answer in found] == [False, False, True, False, True, True, False]


def test_what_stands_in_files_is_not_kept(packages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demand, "needs", lambda *_: Needs(1_000_000, 100_000_000))
    found, _ = answers(packages, [(image(), LABELS)] * 2, repeat_mb=16)
    for answer in found:
        answer.body.close()
    assert [is_repeat(answer) for answer in found] == [False, False]


def test_requests_that_fail_keep_nothing(packages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("broken")

    async def scenario() -> None:
        async with running(packages, repeat_mb=1) as engine:
            repeats = engine._working().pipeline.repeats
            with monkeypatch.context() as patch:
                patch.setattr("service.engine.stages.accepted.label_evidence", broken)
                with pytest.raises(RuntimeError, match="broken"):
                    await engine.segment(io.BytesIO(image(shape=(300, 300))), LABELS)
            assert repeats._promised == 0
            for seed in (3, 4, 3, 4):
                found = await engine.segment(io.BytesIO(image(seed, (300, 300))), LABELS)
            assert is_repeat(found)

    asyncio.run(scenario())


def test_what_runs_at_a_time_promises_no_more_than_there_is(packages: Path) -> None:
    async def scenario() -> int:
        async with running(packages, repeat_mb=1) as engine:
            sent = [engine.segment(io.BytesIO(image(seed, (300, 300))), LABELS) for seed in range(8)]
            assert not any(map(is_repeat, await asyncio.gather(*sent)))
            repeats = engine._working().pipeline.repeats
            assert repeats._promised == 0
            return sum(known.size for known in repeats._kept.values())

    assert 0 < asyncio.run(scenario()) <= 1 << 20


def test_a_repeat_waits_for_no_net_and_is_no_proof_that_it_works(packages: Path) -> None:
    async def scenario() -> None:
        async with running(packages, repeat_mb=16, max_backlog_s=1e-9) as engine:
            running_parts, progress = engine._working(), Progress()
            await engine.segment(io.BytesIO(image()), LABELS)
            chosen = engine.model(LABELS.model)
            running_parts.soundness.failed(chosen, InferenceFailed("it failed"))
            answer = await engine.segment(io.BytesIO(image()), LABELS, progress)
            assert is_repeat(answer)
            assert progress.pixels_done == progress.pixels == 150 * 230
            assert running_parts.soundness._failures[chosen] == 1

    asyncio.run(scenario())


def test_a_package_that_went_is_not_held(tmp_path: Path) -> None:
    package = write_tiny_package(tmp_path, name="other")
    write_tiny_package(tmp_path, name="tiny")

    async def scenario() -> None:
        async with running(tmp_path, repeat_mb=16, rescan_s=0.05, default_model="tiny") as engine:
            chosen = weakref.ref(engine.model("other"))
            await engine.segment(io.BytesIO(image()), replace(LABELS, model="other"))
            shutil.rmtree(package.path)
            await asyncio.to_thread(wait_until, lambda: len(engine.models) == 1)
            await asyncio.to_thread(wait_until, lambda: gc.collect() >= 0 and chosen() is None)

    asyncio.run(scenario())
