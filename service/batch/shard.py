"""Which images are this process's: a share that depends on an image's name alone, never on the order of a listing."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath

_SLURM = ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT", "SLURM_ARRAY_TASK_MIN", "SLURM_ARRAY_TASK_STEP")
_KUBERNETES = "JOB_COMPLETION_INDEX"


class BadShard(Exception):
    """The shard named on the command line or by the environment is none."""


@dataclass(frozen=True, slots=True)
class Shard:
    """Share ``index``, from 0, of ``count``."""

    index: int
    count: int

    def __str__(self) -> str:
        """As it is written on the command line."""
        return f"{self.index}/{self.count}"

    @property
    def label(self) -> str:
        """As it is written in file names."""
        return f"{self.index}-of-{self.count}"

    def takes(self, name: PurePath) -> bool:
        """Whether an image is in this share.

        By a hash of its name: shards need not see the same listing. Images that come while an array runs, or tasks
        that start an hour apart, move no other image. Shares differ by chance, about sqrt(images per shard).
        """
        return self.takes_hashed(hashed(name))

    def takes_hashed(self, name: str) -> bool:
        """Whether an image is in this share whose name is ``hashed`` so."""
        return int(name[:16], 16) % self.count == self.index


def hashed(name: PurePath) -> str:
    """Hash of an image's name, 20 hexadecimal digits."""
    return hashlib.sha256(name.as_posix().encode("utf-8", "surrogateescape")).hexdigest()[:20]


WHOLE = Shard(0, 1)
"""All images."""


def parse_shard(text: str, environment: Mapping[str, str]) -> Shard:
    """Read ``I/N`` with 0 <= I < N, ``auto`` or ``auto/N``.

    Parameters
    ----------
    text
        ``auto`` takes index and count from a SLURM array, whatever its first index and step; ``auto/N`` the index
        alone, from a SLURM array or a Kubernetes Indexed Job, which tells no count.
    environment
        Variables of this process.

    Raises
    ------
    BadShard
        Where it is neither, or the environment does not say.

    """
    if found := re.fullmatch(r"(\d+)/(\d+)", text):
        return _checked(int(found[1]), int(found[2]), f"--shard is {text!r}")
    if found := re.fullmatch(r"auto(?:/(\d+))?", text):
        return _from_environment(int(found[1]) if found[1] else None, environment)
    raise BadShard(f"--shard is {text!r}; write I/N, such as 0/8 to 7/8, or auto, or auto/N")


def _from_environment(count: int | None, environment: Mapping[str, str]) -> Shard:
    task, tasks, first, step = (_number(environment, name) for name in _SLURM)
    if task is not None:
        index = (task - (first or 0)) // (step or 1)
        count = tasks if count is None else count
        if count is not None:
            return _checked(index, count, f"SLURM_ARRAY_TASK_ID is {task}, the array's first is {first or 0}")
    elif (completion := _number(environment, _KUBERNETES)) is not None:
        if count is None:
            raise BadShard(
                f"{_KUBERNETES} is {completion}, but an Indexed Job does not tell how many there are; write --shard "
                "auto/N with the Job's spec.completions"
            )
        return _checked(completion, count, f"{_KUBERNETES} is {completion}")
    raise BadShard(
        f"--shard auto finds neither {_SLURM[0]} and {_SLURM[1]} (a SLURM array) nor {_KUBERNETES} (a Kubernetes "
        "Indexed Job); write --shard I/N"
    )


def _number(environment: Mapping[str, str], name: str) -> int | None:
    text = environment.get(name, "")
    if not text:
        return None
    if not text.isdecimal():
        raise BadShard(f"{name} is {text!r}, not a number; write --shard I/N")
    return int(text)


def _checked(index: int, count: int, what: str) -> Shard:
    if not 0 <= index < count:
        raise BadShard(
            f"{what}: shard {index} of {count} does not exist, shards count from 0 to {count - 1}; to run some shards "
            "of an array again, write --shard I/N with the number that the images were shared among"
        )
    return Shard(index, count)
