"""The table of docs/operations.md that says how large an image each container takes, against what is admitted."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from model.images import ReadLimits, open_image
from model.package import read_package
from service.engine.options import budget_of
from service.engine.request import SegmentRequest
from service.engine.resources import memory_budget
from service.engine.stages.needs import Needs, needs
from service.settings import Settings
from tests.images import tiff

PROJECT = Path(__file__).parents[2]
ROW = re.compile(
    r"^\| (\d+)g \| (\d+)([mg]) \| (\d+) MiB \| (\d+) Mpx[^|]*\| (\d+) Mpx[^|]*\|$",
    re.MULTILINE,
)
ROWS = ROW.findall((PROJECT / "docs" / "operations.md").read_text())


def most_megapixels(output: Literal["mask", "labels"], working_mb: int) -> float:
    """Largest square 16-bit image that the shipped ``nuclei`` takes in memory, Mpx."""
    spec = read_package(PROJECT / "model" / "zoo" / "nuclei").spec
    header = open_image(io.BytesIO(tiff(np.zeros((9, 9), np.uint16))), ReadLimits(10**9, 10**9)).header
    repeat_mb = Settings.model_fields["repeat_mb"].default
    room = Needs(budget_of(Settings(memory_budget_mb=working_mb, repeat_mb=repeat_mb)).images, 0)
    side = 10
    while (
        needs(replace(header, size_yx=(side, side)), spec, [SegmentRequest(output=output)], 0, room).memory_bytes
        <= room.memory_bytes
    ):
        side += 10
    return side**2 / 1e6


def test_the_table_is_there() -> None:
    assert len(ROWS) >= 3


@pytest.mark.parametrize("row", ROWS)
def test_a_container_takes_what_the_table_says(row: tuple[str, ...]) -> None:
    limit, temporary, unit, working, mask, labels = row
    gib = 1 << 30
    fits = memory_budget(0, int(limit) * gib, int(temporary) * (gib if unit == "g" else 1 << 20))
    assert fits == int(working) << 20
    assert most_megapixels("mask", int(working)) == pytest.approx(int(mask), rel=0.05)
    assert most_megapixels("labels", int(working)) == pytest.approx(int(labels), rel=0.05)
