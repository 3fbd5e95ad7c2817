"""What is finished, on disk: results that are there whole or not at all, and a receipt for each.

A folder of results holds ``.unet/receipts/<result>.json`` for every result, ``.unet/parts/`` for what is being made,
and ``.unet/locks/``, one file for each shard. An image is finished where its receipt names the same image (size and
time of change), the same package, software and options as are asked for now, and a result of the size that is there.
"""

from __future__ import annotations

import contextlib
import errno
import json
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from model.atomic import put, remove
from model.locks import wait_for
from service.batch.failures import list_name, lists, of_others, still_true
from service.batch.files import Content, content_of, replace, stamp
from service.batch.locks import idle
from service.batch.receipts import BEFORE, FINISHED, FOLDER, NotReplaced, Receipts
from service.batch.shard import WHOLE, Shard, hashed
from service.batch.targets import BadTarget, Work

# nothing that another image could do better
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}


class NoRoomForResults(Exception):
    """The file system takes no more results."""


@dataclass(frozen=True, slots=True)
class Ledger:
    """Receipts and parts of one folder of results.

    Parameters
    ----------
    out
        The folder.
    shard
        Whose parts these are.
    overwrite
        Whether results may replace files that were changed, or not made here.

    """

    out: Path
    shard: Shard = WHOLE
    overwrite: bool = False

    @contextmanager
    def opened(self, waiting: Callable[[str], None]) -> Iterator[frozenset[str]]:
        """Hold this shard for the length of a ``with`` block.

        A second process for the same shard, as orchestrators may start one, waits for the first to end, and finds
        finished what that has finished. The lock goes with its process, killed or not.

        Parameters
        ----------
        waiting
            Told once why nothing happens.

        Returns
        -------
        frozenset of str
            Keys of this shard's images that an earlier process was killed over, whatever share it had.

        Raises
        ------
        BadTarget
            Where the folder cannot be written.

        """
        try:
            for folder in (self._parts, self.receipts.folder, self._locks):
                folder.mkdir(parents=True, exist_ok=True)
            lock = (self._locks / self.shard.label).open("w")
        except OSError as error:
            raise BadTarget(f"no results can be written to {str(self.out)!r}: {error.strerror}") from error
        with lock:
            busy = f"another process works on shard {self.shard} of {self.out}; waiting for it"
            wait_for(lock.fileno(), waiting=lambda: waiting(busy))
            left = [*self._parts.iterdir(), *self._left_by_others()]
            for part in left:
                remove(part)
            yield frozenset(_whose(part) for part in left)

    def _left_by_others(self) -> Iterator[Path]:
        """Parts of this shard's images that are left of a run in other shares, of which no process works any more."""
        folder = self._parts.parent
        others = [of.name for of in folder.iterdir() if of.name != self.shard.label and any(of.iterdir())]
        for label in idle(self._locks, others):
            for part in (folder / label).iterdir():
                if not part.suffix or self.shard.takes_hashed(_whose(part)):  # without one: of a list of failures
                    yield part

    @contextmanager
    def begun(self, work: Work) -> Iterator[Path]:
        """Mark an image as in work; gives the file in which its result is to be written, on the same file system.

        Raises
        ------
        NoRoomForResults
            As for :meth:`finish`.

        """
        part = self._parts / f"{key(work)}.{secrets.token_hex(4)}"
        try:
            with self._room():
                part.touch()
                yield part
        finally:
            for left in part.parent.glob(f"{part.name}*"):
                with contextlib.suppress(OSError):
                    remove(left)

    def check(self, work: Work) -> Content | None:
        """Say what the result is made of that a new one would replace; None where there is none to be spared.

        Raises
        ------
        NotReplaced
            As :meth:`Receipts.replaced`, but where everything may be replaced.

        """
        try:
            return self.receipts.replaced(work)
        except NotReplaced:
            if self.overwrite:
                return None
            raise

    def finish(self, work: Work, part: Path, receipt: Mapping[str, Any]) -> None:
        """Put a result, which ``part`` holds, in its place, between two receipts.

        Killed in between, the image is done again.

        Raises
        ------
        NotReplaced
            As for :meth:`check`.
        NoRoomForResults
            Where the disk is full, over quota or read-only.
        OSError
            Where this result cannot be written.

        """
        record = {**receipt, "result": content_of(part)}
        before = self.check(work)
        place, receipt_part = self.receipts.place(work.target), _receipt_part(part)
        with self._room():
            # this one knows either result for its own again, and vouches for none
            replace(place, _json({**record, BEFORE: before}), receipt_part)
            put(work.target, part)
            replace(place, _json({**record, FINISHED: datetime.now(UTC).isoformat(timespec="seconds")}), receipt_part)

    def withdraw(self, work: Work) -> bool:
        """Take away a result whose image has changed since, but none that people changed; returns whether it did."""
        try:
            if self.receipts.read(work.target)["image"] == stamp(work.source) or not self.receipts.replaced(work):
                return False
            remove(work.target)
            self.receipts.place(work.target).unlink()
        except (OSError, KeyError, NotReplaced):
            return False
        return True

    @contextmanager
    def _room(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno in _NO_ROOM:
                raise NoRoomForResults(
                    f"{self.out}: {error.strerror}; make room and start again: what is finished stays so"
                ) from error
            raise

    def report(self, failures: list[dict[str, str]], done: Sequence[Path]) -> Path:
        """Write the list of images that failed, or remove that of an earlier run where none is left; returns its path.

        What earlier runs over other images listed stays. Their lists in other shares lose what this run tells anew, and
        go with their last entry.

        Parameters
        ----------
        failures
            Of this run.
        done
            The images that this run was about, failed, finished now or finished before.

        Raises
        ------
        NoRoomForResults
            As for :meth:`finish`.

        """
        path = self.out / list_name(self.shard)
        told = [*done, *(Path(failure["image"]) for failure in failures)]
        self._list(path, [*failures, *of_others(path, told)])
        others = lists(self.out)
        others.pop(self.shard.label, None)
        for label in idle(self._locks, others):
            left = still_true(others[label], done)
            if left is not None:
                self._list(others[label], left)
        return path

    def _list(self, path: Path, failures: list[dict[str, str]]) -> None:
        if failures:
            with self._room():
                replace(path, (json.dumps(failures, indent=2) + "\n").encode(), self._parts / "failures")
        else:
            path.unlink(missing_ok=True)

    @property
    def _parts(self) -> Path:
        return self.out / FOLDER / "parts" / self.shard.label

    @property
    def receipts(self) -> Receipts:
        """Of the results in this folder."""
        return Receipts(self.out)

    @property
    def _locks(self) -> Path:
        return self.out / FOLDER / "locks"


def _json(record: Mapping[str, Any]) -> bytes:
    return json.dumps(record, indent=1).encode()


def key(work: Work) -> str:
    """Name of an image in file names: short and of plain characters, whatever it is called."""
    return hashed(work.image.name)


def _receipt_part(part: Path) -> Path:
    """Where the receipt of what a part holds is written."""
    return part.with_name(f"{part.name}.receipt")


def _whose(part: Path) -> str:
    """Key of the image that a part is of."""
    return part.name.partition(".")[0]
