"""From the first image to the last, several at a time, going on after a failure."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

from model import errors as model_errors
from model.images import errors as image_errors
from service.batch.files import stamp
from service.batch.images import Nowhere
from service.batch.ledger import Ledger, NoRoomForResults, key
from service.batch.progress import Progress
from service.batch.receipts import NotReplaced, State
from service.batch.segmenters import Segmenter, notes_of, seen_identity
from service.batch.targets import Work
from service.client import ServiceGone, ServiceProblem, ServiceUnreachable
from service.errors import ERROR_TREES, INTERNAL, PROBLEMS, problem_kind
from service.interrupts import held_back

_LOG = logging.getLogger("unet.batch")

_LOOK_S = 1.0

NOT_REPLACED = "not-replaced"
"""Type of failure of an image whose result would replace a file that was changed, or not made here."""

_OF_IMAGES = {
    PROBLEMS[error].uri
    for error in (
        image_errors.UndecodableImage,
        image_errors.AxesMismatch,
        image_errors.UnsupportedImageFormat,
        image_errors.ImageTooLarge,
        model_errors.ImageMismatch,
        model_errors.NonFiniteImage,
        model_errors.ExtremePixels,
    )
}
"""Types of failures that an image has by itself; others pass, as the outage of a server, and say nothing of it."""

Notes: TypeAlias = dict[str, list[Path]]
"""Images by what is to be known of how they were read."""


@dataclass(frozen=True, slots=True)
class Failure:
    """One image without a result.

    Parameters
    ----------
    image
        The file, or a folder that may hold some.
    type
        ``/problems/<name>`` as over HTTP; ``file-error`` where a file cannot be read or written, ``unreachable`` where
        the server does not answer, ``not-replaced`` where the result would replace what people made or changed.
    message
        What happened, with the number found, the limit and the remedy.

    """

    image: Path
    type: str
    message: str

    def as_json(self) -> dict[str, str]:
        """Fit for a list of failures."""
        # other runs may begin in another folder
        return {"image": str(self.image.absolute()), "type": self.type, "message": self.message}


Finish: TypeAlias = Callable[[Work, Path, Mapping[str, Any], Callable[[], bool]], tuple[Path, Mapping[str, Any]]]
"""Makes the result of an answer, which lies in a file, and of its receipt; gives where the result lies beside that, and
its receipt. Asks now and then whether nobody wants it any more."""

_Outcome: TypeAlias = Failure | tuple[str, ...] | None
"""Of one image: why it failed, or the notes of its receipt; None where it was broken off."""


@dataclass(frozen=True, slots=True)
class _Begun:
    """An image in work, and its size."""

    item: Work
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Tally:
    """What has become of the images of a run so far.

    Parameters
    ----------
    progress
        Told of each of them.

    """

    progress: Progress
    images: list[Path] = field(default_factory=list)
    """Those that are done, well or not."""
    failures: list[Failure] = field(default_factory=list)
    notes: Notes = field(default_factory=dict)

    def count(self, begun: _Begun, outcome: _Outcome) -> None:
        """Add one image."""
        source = begun.item.source
        self.images.append(source)
        self.progress.advance(begun.size_bytes, failed=isinstance(outcome, Failure))
        if isinstance(outcome, Failure):
            self.failures.append(outcome)
            return
        for note in outcome or ():
            self.notes.setdefault(note, []).append(source)


def left_to_do(
    work: Sequence[Work], ledger: Ledger, identity: Mapping[str, Any], interrupted: frozenset[str]
) -> tuple[list[Work], int]:
    """What has no valid result yet, and how many of the others are valid as people changed them.

    These are left to do where the ledger may overwrite them. Last come those that an earlier process was killed over:
    one of them may be the reason (memory), and must not keep the others from being done.
    """
    todo, changed = [], 0
    for item in work:
        state = ledger.receipts.state(item, identity)
        if state is None or (state is State.CHANGED and ledger.overwrite):
            todo.append(item)
        elif state is State.CHANGED:
            changed += 1
    return sorted(todo, key=lambda item: key(item) in interrupted), changed


def as_answered(
    work: Work, answer: Path, receipt: Mapping[str, Any], closed: Callable[[], bool]
) -> tuple[Path, Mapping[str, Any]]:
    """Take an answer as the result."""
    return answer, receipt


def segment_all(
    work: Sequence[Work],
    segmenter: Segmenter,
    ledger: Ledger,
    in_flight: int,
    tally: Tally,
    *,
    finish: Finish = as_answered,
) -> None:
    """Segment images, ``in_flight`` at a time; what becomes of them is added to ``tally``, also where it ends early.

    Interrupted, or without room or a server, it closes the segmenter: what is under way is broken off, what is finished
    counted.

    Raises
    ------
    NoRoomForResults
        Where no further result can be written.
    ServiceGone
        Where the server has been away for too long.

    """
    identity = segmenter.identity
    stopping = threading.Event()

    def one(item: Work) -> _Outcome:
        try:
            with ledger.begun(item) as part:
                ledger.check(item)  # before the net runs
                image = stamp(item.source)  # before it is read: what changes meanwhile is done again
                with part.open("wb") as into:
                    receipt = segmenter.segment(item.source, into)
                result, receipt = finish(item, part, receipt, stopping.is_set)
                record = {
                    "path": str(item.source.absolute()),
                    "name": item.image.name.as_posix(),
                    "image": image,
                    "identity": seen_identity(identity, receipt),
                    "receipt": receipt,
                }
                ledger.finish(item, result, record)
                return notes_of(receipt)
        except (NoRoomForResults, ServiceGone):  # as for all the others
            raise
        except Exception as error:
            if stopping.is_set():
                return None
            failure = failure_of(item.source, error)
            if failure.type not in _OF_IMAGES or not ledger.withdraw(item):
                return failure
            return replace(failure, message=f"{failure.message}; the result of what was there before has been removed")

    waiting = iter(work)
    running: dict[Future[_Outcome], _Begun] = {}
    with ThreadPoolExecutor(in_flight, thread_name_prefix="unet-batch") as threads:
        try:
            # never more than a few ahead: an interrupt then has little to take back, and a million images no queue
            for item in waiting:
                running[threads.submit(one, item)] = _Begun(item, size_bytes(item))
                if len(running) > in_flight:
                    _collect(running, tally, segmenter)
            while running:
                _collect(running, tally, segmenter)
        except BaseException:
            stopping.set()
            segmenter.close()
            threads.shutdown(cancel_futures=True)
            _count_finished(running, tally)
            raise


def _collect(running: dict[Future[_Outcome], _Begun], tally: Tally, segmenter: Segmenter) -> None:
    """Wait until at least one image is done, and count those that are; meanwhile show that it goes on."""
    while not (done := wait(running, _LOOK_S, return_when=FIRST_COMPLETED).done):
        done_of = segmenter.done_of
        begun_bytes = sum(begun.size_bytes * done_of.get(begun.item.source, 0.0) for begun in running.values())
        tally.progress.look(segmenter.waits_for, begun_bytes)
    for future in done:
        with held_back():
            tally.count(running.pop(future), future.result())


def _count_finished(running: Mapping[Future[_Outcome], _Begun], tally: Tally) -> None:
    """Count what has ended, well or not, before it could be broken off."""
    for future, begun in running.items():
        if not future.cancelled() and future.exception() is None and (outcome := future.result()) is not None:
            tally.count(begun, outcome)


def size_bytes(item: Work) -> int:
    """Size of an image; 0 where there is none, which shows when it is read."""
    try:
        return stamp(item.source)["bytes"]
    except OSError:
        return 0


def failure_of(image: Path, error: Exception) -> Failure:
    """Say what an error means for one image; what was never foreseen is logged with its traceback."""
    if isinstance(error, ServiceProblem):
        return Failure(image, error.type, str(error))
    if isinstance(error, ServiceUnreachable):
        return Failure(image, "unreachable", str(error))
    if isinstance(error, NotReplaced):
        return Failure(image, NOT_REPLACED, str(error))
    if isinstance(error, OSError):
        return Failure(image, "file-error", str(error))
    if not isinstance(error, ERROR_TREES):
        _LOG.error("%s: the software failed", image, exc_info=error)
        return Failure(image, INTERNAL.uri, f"the software failed: {type(error).__name__}: {error}")
    return Failure(image, problem_kind(error).uri, str(error))


def nowhere_failure(nowhere: Nowhere) -> Failure:
    """Say that what was named leads to no image."""
    return Failure(Path(nowhere.named), "file-error", nowhere.why)


def folder_failure(error: OSError) -> Failure:
    """Say that a folder cannot be looked into, so that its images are missing."""
    folder = Path(error.filename)
    return Failure(folder, "file-error", f"cannot be looked into: {error.strerror}; make it readable and start again")
