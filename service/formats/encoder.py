"""What an encoder is, and what it says of its format: a new format is one module, and a name in the package's list."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import IO, ClassVar, get_args

from service.formats.errors import UnsupportedOutput
from service.formats.result import OutputKind, SegmentationResult

NO_PROBABILITIES = "holds objects, not probabilities; ask for output=mask or labels, or for format=tiff or npy"
"""Why a format of objects holds none."""


class Encoder(ABC):
    """Writes results in one format."""

    name: ClassVar[str]
    """What ``format=`` takes."""
    media_type: ClassVar[str]
    """For the Content-Type header."""
    extension: ClassVar[str]
    """For a file name, with its dot."""
    ending_in_folders: ClassVar[str | None] = None
    """Of names in a folder of results, where another format has the same extension; None for the extension."""
    kinds: ClassVar[frozenset[OutputKind]] = frozenset(get_args(OutputKind))
    """What it may hold; it can still be too much of it."""
    refusal: ClassVar[str] = ""
    """Why it holds no other kind, and what does; ``{kind}`` stands for that."""
    placed: ClassVar[bool] = False
    """Whether its coordinates can be those of a larger image (:mod:`service.formats.placement`)."""
    outlined: ClassVar[bool] = False
    """Whether outlines are traced, which takes memory for each pixel."""
    of_edges: ClassVar[bool] = False
    """Whether its size, and the memory that writing takes, follow the edges of the objects."""
    object_bytes: ClassVar[int] = 0
    """Memory that writing takes for each object."""

    @staticmethod
    def least_bytes(output: OutputKind, pixels: int, classes: int) -> int:
        """Fewest bytes that a result of so many pixels takes; 0 where it may be compressed to next to nothing."""
        return 0

    def check_kind(self, kind: OutputKind) -> None:
        """Refuse a kind of result that the format never holds.

        Raises
        ------
        UnsupportedOutput
            Where it is one.

        """
        if kind not in self.kinds:
            raise UnsupportedOutput(self.refusal.format(kind=kind))

    def check_planes(self, planes: int) -> None:  # noqa: B027 - most formats hold any number
        """Refuse a stack where the format holds one plane.

        Raises
        ------
        UnsupportedOutput
            Where it does.

        """

    @abstractmethod
    def write(self, result: SegmentationResult, target: IO[bytes]) -> None:
        """Write ``result`` into an empty file that can be read and rewound.

        Raises
        ------
        UnsupportedOutput
            The format cannot hold this result.

        """
