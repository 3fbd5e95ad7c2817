"""One run on several GPUs: ``torchrun --nproc-per-node N`` starts N processes, each makes and learns its own tiles.

Step by step they do what one process would do with a batch N times as large: the same tiles, batch normalisation by the
statistics of all of them, the same loss (a mean over all annotated pixels of all tiles), the same gradient up to the
rounding of a sum in another order, and so the same weights in every process (test:
``test_two_processes_learn_what_one_learns_from_twice_the_batch``). Drop-out alone is drawn by each for itself.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import overload

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from training.errors import MissingDevice
from training.learning.joint_batch_norm import normalise_jointly
from training.runs.state import require_device

# the others wait while the first one validates; that one of them has died is noticed by torchrun
_PATIENCE = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class _Share(Sequence[int]):
    """Numbers of one process's tiles, computed as they are asked for: a run may have millions of steps.

    Parameters
    ----------
    steps
        Steps of the run.
    rank, processes
        Which one of how many.
    batch
        Tiles a step.

    """

    steps: range
    rank: int
    processes: int
    batch: int

    def __len__(self) -> int:
        return len(self.steps) * self.batch

    @overload
    def __getitem__(self, place: int) -> int: ...

    @overload
    def __getitem__(self, place: slice) -> tuple[int, ...]: ...

    def __getitem__(self, place: int | slice) -> int | tuple[int, ...]:
        if isinstance(place, slice):
            return tuple(self[index] for index in range(*place.indices(len(self))))
        step, tile = divmod(range(len(self))[place], self.batch)
        return (self.steps[step] * self.processes + self.rank) * self.batch + tile


@dataclass(frozen=True, slots=True)
class Processes:
    """The processes of a run, seen from one of them.

    Parameters
    ----------
    rank
        Number of this process, from 0. The first one validates, and writes log and checkpoints.
    count
        How many there are.

    """

    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether this process speaks and writes for all."""
        return self.rank == 0

    def tile_numbers(self, batch: int, start: int, stop: int) -> Sequence[int]:
        """Numbers of this process's tiles, ``batch`` a step, from step ``start`` to before step ``stop``.

        All processes together take the tiles that one alone takes with ``count`` times the batch.
        """
        if self.count == 1:
            return range(start * batch, stop * batch)
        return _Share(range(start, stop), self.rank, self.count, batch)

    def learner(self, net: nn.Module) -> nn.Module:
        """Return the net, or what runs it and averages its gradients over the processes.

        Of several its batch normalisation then looks at the tiles of all (:mod:`training.learning.joint_batch_norm`).
        """
        if self.count == 1:
            return net
        normalise_jointly(net)
        return DistributedDataParallel(net)

    def share(self, known: Tensor) -> Tensor | float:
        """Weight of this process's mean loss, so that the processes' average is the mean over all annotated pixels.

        Parameters
        ----------
        known
            Mask of this process's annotated pixels, bool.

        """
        if self.count == 1:
            return 1.0
        ours = known.sum().float()
        return ours * self.count / self._sum(ours).clamp(min=1)

    def mean(self, value: Tensor) -> Tensor:
        """Mean of a scalar over the processes: the same number in each."""
        return value if self.count == 1 else self._sum(value) / self.count

    def agree(self, value: float) -> float:
        """Return the first process's value: clocks differ, but all have to end at the same step."""
        if self.count == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values, src=0)
        return values[0]

    def wait(self) -> None:
        """Wait until every process has come this far."""
        if self.count > 1:
            dist.barrier()

    @staticmethod
    def _sum(value: Tensor) -> Tensor:
        total = value.detach().clone()
        dist.all_reduce(total)
        return total


ALONE = Processes()


@contextmanager
def joined(device: str) -> Iterator[Processes]:
    """Join the processes that ``torchrun`` has started, each on a GPU of its own; :data:`ALONE` without ``torchrun``.

    Raises
    ------
    MissingDevice
        Where torch cannot use the device, or there are fewer GPUs than processes.

    """
    count = int(os.environ["WORLD_SIZE"]) if dist.is_torchelastic_launched() else 1
    if count == 1:
        yield ALONE
        return
    require_device(device)
    rank, local_rank = int(os.environ["RANK"]), int(os.environ["LOCAL_RANK"])
    backend = "gloo"
    if device == "cuda":
        found = torch.cuda.device_count()
        if local_rank >= found:
            raise MissingDevice(
                f"process {local_rank} of this machine has no GPU of its own: there are {found}; "
                f"start torchrun with --nproc-per-node {found}"
            )
        torch.cuda.set_device(local_rank)
        backend = "nccl"
    if rank:
        logging.getLogger("training").setLevel(logging.WARNING)  # the first one tells it
    dist.init_process_group(backend, timeout=_PATIENCE)
    try:
        yield Processes(rank, count)
    finally:
        dist.destroy_process_group()
