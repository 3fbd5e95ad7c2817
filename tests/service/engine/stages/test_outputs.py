"""Several outputs of one image: byte for byte those of requests of their own, by one run of the net where it can be."""

from __future__ import annotations

import asyncio
import io
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from model import backends
from model.images import ImageHeader, ReadLimits, open_image
from model.label_rule import LabelRule
from model.labels import label_evidence
from service.engine.admission.ticket import Throughput
from service.engine.engine import Engine
from service.engine.errors import Overloaded, SpoolFull, TooLargeForMemory
from service.engine.images.spool import SpoolShare
from service.engine.request import Answer, Body, SegmentRequest
from service.engine.stages import accepted, demand, encoding
from service.engine.stages.encoding import write_body
from service.engine.stages.needs import Needs, needs
from service.formats import Encoder, OutputKind, SegmentationResult
from tests.disks import small_disk
from tests.engines import running
from tests.images import npy
from tests.packages import write_tiny_package
from tests.service.engine.stages.test_on_disk import MB, assert_empty, blobs

OUTPUTS: tuple[OutputKind, ...] = ("mask", "labels", "probabilities")
SUBSETS: tuple[tuple[OutputKind, ...], ...] = (
    ("labels",),
    ("mask", "labels"),
    ("labels", "probabilities"),
    ("probabilities", "mask"),
    ("probabilities", "mask", "labels"),
)
ASKED = SegmentRequest(format="npy")
NPY_HEADER = 128  # bytes


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    rule = LabelRule(method="watershed", seed_threshold=0.9, fill_holes=True, min_area_px=5)
    write_tiny_package(tmp_path / "packages", label_rule=rule)
    return tmp_path / "packages"


async def together(
    engine: Engine, data: bytes, asked: SegmentRequest = ASKED, outputs: Sequence[OutputKind] = OUTPUTS
) -> dict[OutputKind, Answer]:
    with engine.using(None) as chosen:
        return await engine.segment_outputs(io.BytesIO(data), asked, outputs, chosen)


async def alone(
    engine: Engine, data: bytes, asked: SegmentRequest = ASKED, outputs: Sequence[OutputKind] = OUTPUTS
) -> dict[OutputKind, Answer]:
    return {output: await engine.segment(io.BytesIO(data), replace(asked, output=output)) for output in outputs}


def content(answers: dict[OutputKind, Answer]) -> dict[OutputKind, tuple[bytes, dict[str, Any]]]:
    """Bytes and receipts; frees the answers."""
    found = {output: (answer.body.read(), dict(answer.receipt)) for output, answer in answers.items()}
    for answer in answers.values():
        answer.body.close()
    return found


class Runs:
    """What the net has done for an engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._before = self._now()

    def _now(self) -> tuple[float, float]:
        registry = self._engine._metrics.registry
        pixels = registry.get_sample_value("unet_pixels_total", {"model": "tiny@1.0.0"})
        return registry.get_sample_value("unet_batch_tiles_sum") or 0.0, pixels or 0.0

    def since(self) -> tuple[float, float]:
        """Tiles that were run, and pixels of images that were counted, since the last call."""
        before, self._before = self._before, self._now()
        return self._before[0] - before[0], self._before[1] - before[1]


VARIANTS: dict[str, SegmentRequest] = {
    "plain": ASKED,
    "threshold": replace(ASKED, threshold=0.7, min_area=20, min_score=0.6),
    "link": replace(ASKED, link=0.2),
    "mirror": replace(ASKED, mirror=True),
    "scale": replace(ASKED, scale=0.5),
    "auto": replace(ASKED, auto_scale=True, pixel_size_um=(1.3, 1.3)),
    "all of it": replace(ASKED, mirror=True, scale=1.3, threshold=0.6),
    "tiff": replace(ASKED, format="tiff", pixel_size_um=(0.5, 0.4)),
}


@pytest.mark.parametrize("on_disk", [False, True])
@pytest.mark.parametrize("reducing", [False, True])
@pytest.mark.parametrize("planes", [1, 2])
def test_answers_and_receipts_are_those_of_single_requests(
    packages: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *, planes: int, reducing: bool, on_disk: bool
) -> None:
    image = blobs(120) if planes == 1 else np.stack([blobs(120), blobs(120)[::-1]])
    spool = tmp_path / "spool"
    spool.mkdir()
    if reducing:
        monkeypatch.setattr(backends, "GPU_BACKENDS", frozenset({"cpu"}))
        monkeypatch.setattr(backends, "provider_options", lambda *_: {})

    async def scenario() -> None:
        async with running(packages, spool_dir=str(spool)) as engine:
            assert (engine.models[0].session.evidence is not None) == reducing
            runs = Runs(engine)
            for name, asked in VARIANTS.items():
                expected = content(await alone(engine, npy(image), asked))
                tiles, pixels = runs.since()
                assert pixels == 3 * image.size
                with monkeypatch.context() as patch:
                    if on_disk:
                        patch.setattr(demand, "needs", lambda *_: Needs(MB, 100 * MB))
                    for outputs in SUBSETS:
                        found = await together(engine, npy(image), asked, outputs)
                        assert tuple(found) == outputs
                        assert all(answer.body.in_memory != on_disk for answer in found.values())
                        assert content(found) == {output: expected[output] for output in outputs}, (name, outputs)
                        assert runs.since() == (tiles / 3, image.size), (name, outputs)
            assert engine._admission.memory_in_use == engine._admission.disk_in_use == 0

    asyncio.run(scenario())
    assert_empty(spool)


def header_of(image: NDArray[Any]) -> ImageHeader:
    return open_image(io.BytesIO(npy(image)), ReadLimits(10**9, 10**9)).header


def needed(engine: Engine, image: NDArray[Any], *outputs: OutputKind) -> int:
    """Bytes of memory that a run of the net for some outputs takes."""
    requests = [replace(ASKED, output=output) for output in outputs]
    spec = engine.models[0].package.spec
    return needs(header_of(image), spec, requests, 1, Needs(10**12, 0)).memory_bytes


def scarce(engine: Engine, memory_bytes: int) -> None:
    engine._admission.memory_limit = memory_bytes
    engine._admission.disk_limit = 0


def test_outputs_together_need_less_than_one_by_one_and_more_than_any(packages: Path) -> None:
    spec = write_tiny_package(packages, name="other").spec
    header, most = header_of(np.zeros((2000, 3000), np.uint16)), Needs(10**12, 0)
    requests = [SegmentRequest(output=output, format="npy") for output in OUTPUTS]
    mask, labels, probabilities = (needs(header, spec, [each], 1, most).memory_bytes for each in requests)
    every = needs(header, spec, requests, 1, most).memory_bytes
    # results and answers of one and eight bytes a pixel come to what labels need
    assert every == labels + 2 * 2000 * 3000 * (1 + 8)
    assert max(mask, labels, probabilities) < every < mask + labels + probabilities


def test_answers_are_charged_until_each_is_sent(packages: Path) -> None:
    async def scenario() -> None:
        async with running(packages) as engine:
            answers = await together(engine, npy(blobs()))
            held = sum(answer.body.size for answer in answers.values())
            for answer in answers.values():
                assert engine._admission.memory_in_use == held
                held -= answer.body.size
                answer.body.close()
            assert engine._admission.memory_in_use == held == 0

    asyncio.run(scenario())


def test_what_has_no_room_together_is_made_in_turn_labels_first(packages: Path) -> None:
    image = blobs()

    async def scenario() -> None:
        async with running(packages) as engine:
            runs = Runs(engine)
            expected = content(await alone(engine, npy(image)))
            once = runs.since()
            scarce(engine, needed(engine, image, *OUTPUTS))
            assert content(await together(engine, npy(image))) == expected
            assert runs.since() == (once[0] / 3, image.size)
            scarce(engine, needed(engine, image, *OUTPUTS) - 1)
            assert content(await together(engine, npy(image))) == expected
            assert runs.since() == once
            # with an answer beside there would be no room for labels
            scarce(engine, needed(engine, image, "labels"))
            assert content(await together(engine, npy(image))) == expected

    asyncio.run(scenario())


def test_what_has_no_room_together_now_is_made_in_turn(packages: Path) -> None:
    """As when a job holds most of the memory for an hour."""
    image = blobs()

    async def scenario() -> None:
        async with running(packages) as engine:
            runs, admission = Runs(engine), engine._admission
            expected = content(await alone(engine, npy(image)))
            once = runs.since()
            held = admission.memory_limit - needed(engine, image, *OUTPUTS) + 1
            with admission.admit(Throughput(MB), 0, held, 60):
                assert content(await together(engine, npy(image))) == expected
                assert runs.since() == once
            full = admission.admit(Throughput(MB), 0, admission.memory_limit, 60)
            with full, pytest.raises(Overloaded, match="requests hold"):
                await together(engine, npy(image))

    asyncio.run(scenario())


def test_objects_that_have_no_room_beside_other_outputs_get_it_in_turn(
    packages: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = blobs()

    async def scenario() -> None:
        async with running(packages) as engine:
            runs = Runs(engine)
            expected = content(await alone(engine, npy(image)))
            tiles, pixels = runs.since()
            scarce(engine, 1000 * MB)
            monkeypatch.setattr(accepted, "_LEAST_CHARGE", 1)
            monkeypatch.setattr(accepted, "BYTES_PER_OBJECT", 1)
            objects = 1000 * MB - needed(engine, image, "labels")
            monkeypatch.setattr(
                accepted, "label_evidence", lambda *given, tell, **named: told(objects, tell, *given, **named)
            )
            assert content(await together(engine, npy(image))) == expected
            assert runs.since() == (4 * tiles / 3, pixels)

    asyncio.run(scenario())


real_labels = label_evidence


def test_objects_that_wait_in_vain_beside_other_outputs_are_made_in_turn(
    packages: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accepted, "_LEAST_CHARGE", 1)
    monkeypatch.setattr(accepted, "BYTES_PER_OBJECT", 1)
    monkeypatch.setattr(accepted, "label_evidence", lambda *given, tell, **named: told(50 * MB, tell, *given, **named))
    monkeypatch.setattr("service.engine.admission.growth._PATIENCE_S", 0.1)

    async def scenario() -> None:
        async with running(packages) as engine:
            image, held = blobs(), 1000 * MB
            scarce(engine, held)
            monkeypatch.setattr(engine._admission._growth, "_limit", held)
            held -= needed(engine, image, "labels") + 50 * MB + 200_000
            with engine._admission.admit(Throughput(MB), 0, held, 60):
                content(await together(engine, npy(image)))
                assert engine._admission.memory_in_use == held

    asyncio.run(scenario())


def test_a_disk_that_is_full_keeps_no_outputs_from_memory_in_turn(packages: Path) -> None:
    image = np.tile(blobs(100), (20, 20))
    outputs: tuple[OutputKind, ...] = ("mask", "probabilities")

    async def scenario() -> None:
        async with running(packages) as engine:
            admission = engine._admission
            admission.memory_limit, admission.disk_limit = needed(engine, image, *outputs) - 1, 1 << 35
            with small_disk(30_000):
                made = content(await together(engine, npy(image), outputs=outputs))
                expected = content(await alone(engine, npy(image), outputs=outputs))
                assert {output: answer for output, (answer, _) in made.items()} == {
                    output: answer for output, (answer, _) in expected.items()
                }
            assert admission.memory_in_use == admission.disk_in_use == 0

    asyncio.run(scenario())


def told(objects: int, tell: Any, *given: Any, **named: Any) -> Any:
    """Find objects, as if there were so many."""
    tell(objects)
    return real_labels(*given, tell=lambda _: None, **named)


def test_an_output_that_could_never_fit_alone_is_told_before_the_net_runs(packages: Path) -> None:
    image = blobs()

    async def scenario() -> None:
        async with running(packages) as engine:
            runs = Runs(engine)
            scarce(engine, needed(engine, image, "labels") - 1)
            with pytest.raises(TooLargeForMemory, match=r"its result need \d+ MB, the memory .* MB; raise UNET_MEM"):
                await together(engine, npy(image), outputs=("mask", "labels"))
            assert runs.since() == (0, 0)
            assert len(await together(engine, npy(image), outputs=("mask", "probabilities"))) == 2

    asyncio.run(scenario())


def test_labels_that_turn_out_larger_leave_no_room_for_good(tmp_path: Path) -> None:
    """Of four bytes a pixel, from 65,536 objects on: nobody is told to try again."""
    write_tiny_package(tmp_path)
    dots = np.zeros((4, 600, 600), np.uint16)
    dots[:, ::2, ::2] = 60_000

    async def scenario() -> None:
        async with running(tmp_path) as engine:
            runs, least = Runs(engine), needed(engine, dots, "probabilities") + 2 * dots.size
            scarce(engine, least + dots.size)
            with pytest.raises(TooLargeForMemory, match="beside 6 MB of the request's other results"):
                await together(engine, npy(dots))
            assert runs.since()[1] == dots.size
            assert engine._admission.memory_in_use == 0

    asyncio.run(scenario())


def test_files_of_answers_count_against_the_spools_limit_likewise(
    packages: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = blobs()

    async def scenario() -> None:
        async with running(packages) as engine:
            monkeypatch.setattr(demand, "needs", lambda _, __, requests, *___: Needs(MB, 2 * MB * len(requests)))
            engine._admission.disk_limit = 2 * MB + 2 * image.size
            with pytest.raises(TooLargeForMemory, match=r"in files beside 1 MB of .* fewer .* UNET_SPOOL_LIMIT_MB"):
                await together(engine, npy(image))

    asyncio.run(scenario())


def test_a_caller_who_goes_frees_everything(packages: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demand, "needs", lambda *_: Needs(MB, 100 * MB))
    spool = tmp_path / "spool"
    spool.mkdir()

    async def scenario() -> None:
        async with running(packages, spool_dir=str(spool)) as engine:
            real, second, gone = write_body, threading.Event(), threading.Event()
            begun: list[str] = []

            def late(encoder: Encoder, result: SegmentationResult, spool: SpoolShare) -> Body:
                begun.append(result.kind)
                if len(begun) == 2:
                    second.set()
                    gone.wait(20)
                return real(encoder, result, spool)

            monkeypatch.setattr(encoding, "write_body", late)
            asked = asyncio.create_task(together(engine, npy(blobs())))
            await asyncio.to_thread(second.wait, 20)
            asked.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asked
            gone.set()
        assert begun == ["mask", "labels"]

    asyncio.run(scenario())
    assert_empty(spool)


def test_an_answer_that_cannot_be_written_takes_those_before_it_along(
    packages: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = write_body
    bodies: list[Body] = []

    def full(*given: Any) -> Body:
        if len(bodies) == 2:
            raise SpoolFull("0 MB are left")
        bodies.append(real(*given))
        return bodies[-1]

    async def scenario() -> None:
        async with running(packages) as engine:
            monkeypatch.setattr(encoding, "write_body", full)
            with pytest.raises(SpoolFull):
                await together(engine, npy(blobs()))
            assert engine._admission.memory_in_use == 0

    asyncio.run(scenario())
    for body in bodies:
        with pytest.raises(ValueError, match="closed"):
            body.read()


def test_a_link_stands_in_receipts_of_labels_alone(packages: Path) -> None:
    async def scenario() -> dict[OutputKind, Answer]:
        async with running(packages) as engine:
            return await together(engine, npy(np.stack([blobs(100)] * 2)), replace(ASKED, link=0.5))

    receipts = {output: receipt["output"] for output, (_, receipt) in content(asyncio.run(scenario())).items()}
    assert [output for output in OUTPUTS if "link" in receipts[output]] == ["labels"]
