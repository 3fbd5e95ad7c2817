"""The scheduler where a device has less memory than a batch takes: it halves, keeps what is done, and goes on."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import numpy as np
import pytest
from numpy.typing import NDArray

from model.errors import InferenceFailed, OutOfDeviceMemory
from tests.service.engine.scheduling.test_scheduler import POISON, job, scheduler_with


@dataclass
class SmallDevice:
    """A net for which there is memory for so many tiles at a time; notes the size of every batch."""

    most: int
    sizes: list[int] = field(default_factory=list)

    def __call__(self, tiles: NDArray[np.float32]) -> NDArray[np.float32]:
        self.sizes.append(len(tiles))
        if len(tiles) > self.most:
            raise OutOfDeviceMemory(f"no memory for {len(tiles)} tiles")
        if (tiles == POISON).any():
            raise InferenceFailed("poison")
        return tiles[:, :, 8:-8, 8:-8]


@pytest.mark.parametrize(("most", "sizes"), [(4, [8, 4, 4, 4, 4]), (3, [8, 4, 2, 2, 4, 2, 2, 2, 2, 2, 2])])
def test_a_batch_without_memory_is_halved_and_later_ones_are_no_larger(most: int, sizes: list[int]) -> None:
    net = SmallDevice(most)
    values = [float(n) for n in range(16)]

    async def scenario() -> list[float]:
        written: list[float] = []
        async with scheduler_with(batch_tiles=8) as scheduler:
            await scheduler.run(job(net, values, written=written))
        return written

    assert asyncio.run(scenario()) == values
    assert net.sizes == sizes


def test_without_memory_for_one_tile_its_job_fails_and_others_go_on() -> None:
    async def scenario() -> list[float]:
        written: list[float] = []
        async with scheduler_with(batch_tiles=8) as scheduler:
            with pytest.raises(OutOfDeviceMemory):
                await scheduler.run(job(SmallDevice(0), [1.0, 2.0], key="large"))
            await scheduler.run(job(SmallDevice(8), [3.0], written=written))
        return written

    assert asyncio.run(scenario()) == [3.0]


def test_poison_in_a_batch_without_memory_still_fails_alone() -> None:
    async def scenario() -> list[float]:
        net = SmallDevice(2)
        written: list[float] = []
        async with scheduler_with(batch_tiles=4) as scheduler:
            bad = asyncio.create_task(scheduler.run(job(net, [POISON])))
            good = asyncio.create_task(scheduler.run(job(net, [1.0, 2.0, 3.0], written=written)))
            await good
            with pytest.raises(InferenceFailed, match="poison"):
                await bad
        assert net.sizes[0] == 4
        return written

    assert asyncio.run(scenario()) == [1.0, 2.0, 3.0]
