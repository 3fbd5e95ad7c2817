"""What is known of an uploaded image before a pixel is decoded, and how its planes are then read."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, NamedTuple, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from model.images.errors import ImageTooLarge, UndecodableImage

MAX_CHANNELS = 256
"""More channels than any microscope has; beyond it the axes have been misread."""
MOST_NAME_CHARACTERS = 100
"""Of a channel; longer names are cut, as they are written into every receipt."""
PIXEL_SIZE_LIMITS_UM = (1e-6, 1e6)
"""Smallest and largest length of a pixel that is believed, 1 pm and 1 m: all of them fit the rationals of a TIFF."""

_BELIEVABLE_UM = (5e-4, 20.0)


def believed_um(height: float, width: float) -> tuple[float, float] | None:
    """Size of a pixel in micrometres by a file's resolution for print, where it is one that a microscope gives.

    72, 96, 300 or 600 dots per inch (353 to 42 µm) are printers' and screens' defaults.
    """
    smallest, largest = _BELIEVABLE_UM
    return (height, width) if smallest <= height <= largest and smallest <= width <= largest else None


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """What the header declares; every array that :class:`ImageReader` gives agrees with it."""

    format: str
    """``png``, ``jpeg``, ``bmp``, ``tiff`` or ``npy``."""
    dtype: np.dtype[Any]
    """Type of the pixels as they are handed out (native byte order)."""
    size_yx: tuple[int, int]
    """Height and width in pixels."""
    channels: int
    """Length of the last axis of a plane."""
    planes: int
    """Number of planes: the product of ``stack_shape``."""
    stack_axes: str
    """One letter per stack axis, slowest first: ``TZ``; empty for one plane. ``I`` is a sequence of unnamed meaning."""
    stack_shape: tuple[int, ...]
    """Length of each stack axis; planes are numbered in C order of these."""
    bits: int
    """Significant bits per sample: 12 for a 12 bit camera in 16 bit words."""
    pixel_size_um: tuple[float, float] | None
    """Height and width of a pixel in micrometres, or None where the file gives no believable one."""
    compression: str
    notes: tuple[str, ...]
    """What was changed or left out on reading, in words."""
    spacing_um: float | None = None
    """Distance of the planes of a z stack in micrometres, where the file gives one."""
    interval_s: float | None = None
    """Time between frames in seconds, where the file gives one."""
    channel_names: tuple[str, ...] = ()
    """One for each channel, empty for those that the file does not name; none at all where it names no channel."""


class Part(NamedTuple):
    """Some rows of some channels of a plane."""

    rows: slice
    channels: slice
    samples_yxc: NDArray[Any]
    """(y, x, c) of the header's type."""


class ImageReader(Protocol):
    """An opened image; closing it leaves the source open."""

    header: ImageHeader

    @property
    def part_bytes(self) -> int:
        """Bytes of the largest :class:`Part`; decoding it takes about three times as much."""
        ...

    def read_parts(self, index: int) -> Iterator[Part]:
        """Decode plane ``index`` (C order of the stack axes) part by part: each channel from top to bottom."""
        ...

    def read_plane(self, index: int) -> NDArray[Any]:
        """Decode plane ``index`` whole, as (y, x, c) of ``header.dtype``."""
        ...

    def close(self) -> None:
        """Release what the reader holds; the source belongs to the caller."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class ReaderOfParts:
    """What readers share: planes made of parts, and ``with`` for those that hold nothing but the caller's source."""

    __slots__ = ("header",)
    header: ImageHeader

    @abstractmethod
    def read_parts(self, index: int) -> Iterator[Part]:
        """See :class:`ImageReader`."""

    @property
    def plane_bytes(self) -> int:
        """Bytes of a decoded plane."""
        return math.prod(self.header.size_yx) * self.header.channels * self.header.dtype.itemsize

    def read_plane(self, index: int) -> NDArray[Any]:
        """Decode plane ``index`` as (y, x, c) of ``header.dtype``.

        Raises
        ------
        IndexError
            There is no such plane.
        UndecodableImage
            The image is damaged or incomplete.
        """
        plane_yxc: NDArray[Any] | None = None
        shape = (*self.header.size_yx, self.header.channels)
        for part in self.read_parts(index):
            if part.samples_yxc.shape == shape:
                return part.samples_yxc
            if plane_yxc is None:
                plane_yxc = np.empty(shape, dtype=self.header.dtype)
            plane_yxc[part.rows, :, part.channels] = part.samples_yxc
        if plane_yxc is None:
            raise UndecodableImage(f"plane {index} has 0 rows, 1 is needed; write the file again")
        return plane_yxc

    def close(self) -> None:
        """Do nothing: the source belongs to the caller."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@dataclass(frozen=True, slots=True)
class ReadLimits:
    """Bounds on what a header may declare, checked before anything is decoded."""

    max_pixels: int
    """Pixels of all planes together; channels are not counted."""
    max_bytes: int
    """Decoded bytes of all planes and channels together."""
    setting: str = "the limit"
    """What to raise for more pixels, as the remedy names it."""

    def check(self, header: ImageHeader) -> None:
        """Refuse a header that declares no pixel at all, or more than the limits.

        Raises
        ------
        UndecodableImage
            An axis is empty, or there are more channels than :data:`MAX_CHANNELS`.
        ImageTooLarge
            More pixels or bytes than allowed.
        """
        height, width = header.size_yx
        if min(height, width, header.channels, header.planes) < 1:
            msg = f"the image is empty: {header.planes} planes of {height} x {width} x {header.channels}"
            raise UndecodableImage(f"{msg}; every axis needs at least one element")
        if header.channels > MAX_CHANNELS:
            msg = f"{header.channels} channels declared, the limit is {MAX_CHANNELS}; send fewer, or a stack of planes"
            raise UndecodableImage(msg)
        pixels = math.prod((header.planes, height, width))
        what = f"{header.planes} x {height} x {width} (planes, height, width)"
        if pixels > self.max_pixels:
            msg = f"the image declares {what} = {pixels} pixels, the limit is {self.max_pixels}"
            raise ImageTooLarge(f"{msg}; crop it, send fewer planes, or raise {self.setting}")
        decoded = pixels * header.channels * header.dtype.itemsize
        if decoded > self.max_bytes:
            msg = (
                f"the image declares {what} with {header.channels} channels of {header.dtype} = {decoded} bytes decoded"
            )
            raise ImageTooLarge(f"{msg}, the limit is {self.max_bytes}; crop it, or send fewer planes or channels")


def check_index(index: int, planes: int) -> None:
    """Refuse a plane that does not exist.

    Raises
    ------
    IndexError
        ``index`` is not in ``0 .. planes - 1``.
    """
    if not 0 <= index < planes:
        msg = f"plane {index} of {planes}: ask for 0 to {planes - 1}"
        raise IndexError(msg)


WIDENED: dict[np.dtype[Any], np.dtype[Any]] = {
    np.dtype(np.bool_): np.dtype(np.uint8),
    np.dtype(np.int8): np.dtype(np.int16),
    np.dtype(np.float16): np.dtype(np.float32),
    np.dtype(np.int64): np.dtype(np.float64),
    np.dtype(np.uint64): np.dtype(np.float64),
}
"""Sample types that the service does not compute with, and the next wider one that holds the same values."""

NATIVE = frozenset(
    np.dtype(kind) for kind in (np.uint8, np.uint16, np.int16, np.uint32, np.int32, np.float32, np.float64)
)
"""Sample types that are handed out as they are."""


def handed_out(stored: np.dtype[Any]) -> np.dtype[Any]:
    """Type in which samples of ``stored`` are handed out.

    Raises
    ------
    UndecodableImage
        Not a real number of at most 64 bits.
    """
    native = stored.newbyteorder("=")
    if native in NATIVE:
        return native
    if native in WIDENED:
        return WIDENED[native]
    msg = f"samples of type {stored} are not supported"
    raise UndecodableImage(f"{msg}; send integers or floats of 8 to 64 bits (uint8, uint16, float32 ...)")


def widened_note(stored: np.dtype[Any]) -> tuple[str, ...]:
    """Say how :func:`widen` changes the samples of ``stored``; nothing where it does not."""
    native = stored.newbyteorder("=")
    if native == np.bool_:
        return ("one bit per pixel given as 0 and 255",)
    return (f"{native} given as {WIDENED[native]}, same values",) if native in WIDENED else ()


def widen(samples: NDArray[Any]) -> NDArray[Any]:
    """Hand out ``samples`` (any shape) as :func:`handed_out` says, without changing a value; bool becomes 0 and 255.

    Raises
    ------
    UndecodableImage
        A 64 bit integer beyond 2**53, which float64 cannot hold exactly.
    """
    stored = samples.dtype.newbyteorder("=")
    target = handed_out(stored)
    if stored == np.bool_:
        return samples.view(np.uint8) * np.uint8(255)
    if stored.kind in "iu" and stored.itemsize == 8 and samples.size:
        low, high = int(samples.min()), int(samples.max())
        if max(-low, high) > 2**53:
            msg = f"a sample is {low if -low > high else high}, the limit for 64 bit integers is 2**53"
            raise UndecodableImage(f"{msg}; scale the image and send 32 bit integers or floats")
    return samples.astype(target, copy=False)
