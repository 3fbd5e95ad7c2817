"""What the engine is asked, and what it answers."""

from __future__ import annotations

import io
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import IO, Any

from service.formats import UNPLACED, OutputKind, Placement


@dataclass(frozen=True, slots=True)
class SegmentRequest:
    """One image to be segmented.

    Parameters
    ----------
    model
        ``name`` or ``name@version``; None for the default.
    output
        Class mask, instance labels or class probabilities.
    format
        Name of an output format.
    threshold
        Foreground where its probability exceeds this, 0 to 1; None leaves it to the package.
    min_area
        Smallest object in px (labels); None leaves it to the package.
    min_score
        Least mean foreground probability of an object (labels); None leaves it to the package.
    link
        Least intersection over union with which objects of neighbouring planes are one (labels); None numbers each
        plane by itself.
    channel
        Which channel of the image to take, its number from 0 or its name, for packages of one channel.
    axes
        How the image's axes are laid out, in place of what the file says; see :mod:`model.images.axes`.
    mirror
        Whether probabilities are the mean over mirrored and turned views; see :mod:`model.views`.
    scale
        By which the image is resampled for the net, and the result back; None for its own, and so is 1.
    auto_scale
        Whether the scale is chosen by the image in place of being given; see :mod:`service.engine.stages.auto_scale`.
    pixel_size_um
        Height and width of a pixel in place of what the file says, micrometres.
    placement
        Where the image lies in a larger one, for formats with coordinates.
    timeout_s
        Seconds until the caller gives up; None for the service's own limit.
    background
        Whether nobody waits for the answer: all such requests together get the net as often as one other does.
    user
        Whose it is: users have equal shares where there is not enough for all, and all whose user is None are one.
    file_name
        Of the image, without folders, for formats that name it; None where nobody has said it.

    """

    model: str | None = None
    output: OutputKind = "mask"
    format: str = "png"
    threshold: float | None = None
    min_area: int | None = None
    min_score: float | None = None
    link: float | None = None
    channel: int | str | None = None
    axes: str | None = None
    mirror: bool = False
    scale: float | None = None
    auto_scale: bool = False
    pixel_size_um: tuple[float, float] | None = None
    placement: Placement = UNPLACED
    timeout_s: float | None = None
    background: bool = False
    user: str | None = None
    file_name: str | None = None


class Body:
    """An encoded result, in memory or in a file on disk.

    Parameters
    ----------
    file
        Holds it from its beginning to its end; closed with the body.

    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.size = file.seek(0, 2)
        file.seek(0)
        self._freed: list[weakref.finalize[..., Body]] = []

    @property
    def in_memory(self) -> bool:
        """Whether reading never waits for a disk."""
        return isinstance(self._file, io.BytesIO)

    def read(self, most: int = -1) -> bytes:
        """Read what follows: all of it, or at most so many bytes; empty at the end."""
        return self._file.read(most)

    def seek(self, offset: int) -> None:
        """Have :meth:`read` go on from so many bytes after the beginning."""
        self._file.seek(offset)

    def when_freed(self, call: Callable[[], None]) -> None:
        """Have a function called once the body is closed, or gone because nobody wants it any more."""
        self._freed.append(weakref.finalize(self, call))

    def close(self) -> None:
        """Free its memory, or its room on the disk."""
        self._file.close()
        for freed in self._freed:
            freed()


@dataclass(frozen=True, slots=True)
class Answer:
    """A finished segmentation, encoded."""

    body: Body
    media_type: str
    extension: str
    """For a file name, with its dot."""
    receipt: Mapping[str, Any]
    """What was decoded, normalised, planned and run; the same for the same image, package and settings."""
    stages_ms: Mapping[str, float]
    """Milliseconds of each stage."""
    model: str
    """``name@version`` of what ran."""


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether new requests should come here, and if not, why."""

    ready: bool
    reasons: tuple[str, ...]
