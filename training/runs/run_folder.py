"""A run's folder: checkpoints, and the log, which a killed run goes on with as if nothing had been."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from model.locks import release, wait_for
from model.package import ZOO, description_name
from training.errors import CheckpointError
from training.paths import given_path
from training.runs.state import TrainingState
from training.writing import replacing, require_folder

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


_PATIENCE_S = 15.0
"""Processes that make tiles hold the lock, too, and notice a kill of the one that they work for after five seconds."""
NET_HELP = "folder of a run, a .pt file, or a package (folder, zip, or the name of one that ships)"
"""What :func:`net_path` takes."""


@dataclass(frozen=True, slots=True)
class RunFiles:
    """Files of one run's folder."""

    folder: Path

    @property
    def last(self) -> Path:
        """Newest state, to resume from."""
        return self.folder / "last.pt"

    @property
    def best(self) -> Path:
        """State with the best validation score, to evaluate and export."""
        return self.folder / "best.pt"

    @property
    def recipe(self) -> Path:
        """Recipe that was chosen from the images; not there where one was named."""
        return self.folder / "recipe.toml"

    @property
    def log(self) -> Path:
        """One JSON object a line: step, minutes, running loss, learning rate, figures of a validation."""
        return self.folder / "log.jsonl"

    def require(self, *, resume: bool, held: bool = False) -> None:
        """Make sure that there is a run to resume, or that none would be overwritten, and that the folder takes files.

        Parameters
        ----------
        resume
            Whether a run shall go on.
        held
            Whether the folder is :meth:`taken` for this run; else who holds it is told.

        Raises
        ------
        CheckpointError
            With the remedy.
        Unwritable
            Where the folder cannot be written.

        """
        require_folder(self.folder)
        if resume and not self.last.exists():
            raise CheckpointError(
                f"nothing to resume: there is no {self.last}; leave --resume out to begin, or correct --out"
            )
        if not resume and not held and self.last.exists() and self.in_work():
            raise self._busy()
        if not resume and self.last.exists():
            raise CheckpointError(
                f"{self.last} is there already; resume it (--resume), or choose another folder (--out)"
            )
        if not resume and self.best.exists():
            raise CheckpointError(f"{self.best} is there already; choose another folder (--out)")

    def in_work(self) -> bool:
        """Whether a process trains into the folder; False where there are no locks that tell."""
        path = self.folder / ".lock"
        if not path.exists():
            return False
        lock = _open_lock(path)
        try:
            return wait_for(lock, 0) is False
        finally:
            os.close(lock)  # which lets go of it

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Keep other processes from training into the folder, until the block or this process ends, killed or not.

        Raises
        ------
        CheckpointError
            Where one does.

        """
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = _open_lock(self.folder / ".lock")
        try:
            if wait_for(lock, _PATIENCE_S) is False:
                raise self._busy()
            yield
        finally:
            release(lock)  # processes that make tiles have it open, too
            os.close(lock)

    def _busy(self) -> CheckpointError:
        return CheckpointError(
            f"another process trains into {self.folder}; let it end, or choose another folder (--out)"
        )


def _open_lock(path: Path) -> int:
    """Open the file for locking; one that somebody else has made can be read, and that is enough."""
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except PermissionError:
        return os.open(path, os.O_RDONLY)


def is_run(target: Path) -> bool:
    """Whether a path is a checkpoint or the folder of a run, and not a package."""
    return target.suffix == ".pt" or RunFiles(target).best.exists() or RunFiles(target).last.exists()


def net_path(named: str) -> Path:
    """Path of a run, a checkpoint or a package that a command is given: where there is none, a shipped one's name."""
    path, shipped = given_path(named), ZOO / named
    return shipped if path.name == named and not path.exists() and description_name(shipped) else path


def require_net(path: Path) -> None:
    """Make sure that there is something.

    Raises
    ------
    CheckpointError
        With what would do.

    """
    if not path.exists():
        ships = ", ".join(sorted(folder.name for folder in ZOO.glob("*") if description_name(folder)))
        raise CheckpointError(
            f"there is no {str(path)!r}; name the folder of a run, a .pt file, a package (folder or zip), or one that "
            f"ships: {ships}"
        )


def checkpoint_path(run: Path) -> Path:
    """File of the net to use: the given one, or the best of a run's folder.

    Raises
    ------
    CheckpointError
        Where a run has none yet.

    """
    files = RunFiles(run)
    if run.suffix == ".pt":
        return run
    if files.last.exists() and not files.best.exists():
        remedy = "a process trains there. Wait for it" if files.in_work() else "it ended before. Resume it (--resume)"
        raise CheckpointError(
            f"{run} has no {files.best.name} yet: a run has it from its first validation on, or at its end where "
            f'schedule.keep is "last" or no image validates, and {remedy}, or name its newest state, {files.last}'
        )
    return files.best


class Journal:
    """The log of a run that stands at a step: a new one, or the one to go on with.

    What a killed run logged beyond its newest checkpoint is dropped, for it is done and logged again, and so is a line
    that the kill cut in two.

    Parameters
    ----------
    file
        ``log.jsonl``.
    step
        Steps done.
    tensorboard
        Write TensorBoard's event files beside ``file`` as well.

    """

    def __init__(self, file: Path, step: int, *, tensorboard: bool) -> None:
        self._file = file
        if file.exists():
            whole = [line for line in file.read_bytes().splitlines(keepends=True) if _step(line) <= step]
            with replacing(file) as kept:
                kept.write(b"".join(whole))
        self._writer = _event_writer(file.parent, step) if tensorboard else None

    def write(self, state: TrainingState, rate: float, *, validated: bool) -> None:
        """Add a line: step, minutes, running loss, learning rate, figures of a validation."""
        entry: dict[str, Any] = {"step": state.step, "minutes": round(state.elapsed_s / 60, 2)}
        entry |= {"loss": state.loss, "lr": rate}
        figures = state.figures if validated else {}
        with self._file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry | ({"validation": figures} if validated else {})) + "\n")
        if self._writer is not None:
            scalars = {"loss": state.loss, "lr": rate, **{f"validation/{name}": v for name, v in figures.items()}}
            for name, value in scalars.items():
                self._writer.add_scalar(name, value, state.step)

    @property
    def shows_pictures(self) -> bool:
        """Whether pictures are kept: TensorBoard's event files alone hold them."""
        return self._writer is not None

    def show(self, step: int, picture: NDArray[np.uint8]) -> None:
        """Add the picture (y, x, 3) of the worst validation image to TensorBoard's event files."""
        if self._writer is not None:
            self._writer.add_image("validation/worst image", picture, step, dataformats="HWC")

    def close(self) -> None:
        """Write what TensorBoard's writer still holds."""
        if self._writer is not None:
            self._writer.close()


def _step(line: bytes) -> float:
    """Step of a line; infinite for one that is not whole."""
    try:
        return int(json.loads(line)["step"]) if line.endswith(b"\n") else float("inf")
    except (ValueError, TypeError, KeyError):
        return float("inf")


def _event_writer(folder: Path, step: int) -> SummaryWriter:
    from torch.utils.tensorboard import SummaryWriter  # seconds to import

    return SummaryWriter(str(folder), purge_step=step + 1)
