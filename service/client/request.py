"""What to ask a server."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO, Any, Union

from numpy.typing import NDArray

Image = Union[str, "os.PathLike[str]", bytes, NDArray[Any]]
"""A file, a file's content, or an array (y, x), (y, x, channels), (planes, y, x), or as ``axes`` says."""

Option = Union[str, float, bool, "tuple[float, ...]", "list[float]", None]
"""Of a request; several numbers, such as ``origin=(2048, 10240)``, are sent with commas between, None is not sent."""

SEGMENT = "/segment"


@dataclass(frozen=True)
class Request:
    """What to ask."""

    method: str
    path: str
    params: Mapping[str, Option]
    image: Image = b""
    into: IO[bytes] | None = None
    """Where a result goes; it is kept in memory where None."""
    name: str | None = None
    """What a file is called; its own name where None."""

    @property
    def query(self) -> dict[str, str | float | bool]:
        """Parameters as they are sent."""
        return {name: _sent(value) for name, value in self.params.items() if value is not None}


def _sent(value: str | float | bool | tuple[float, ...] | list[float]) -> str | float | bool:
    """Value of a parameter; httpx would send each number of several as a parameter of its own."""
    return ",".join(map(str, value)) if isinstance(value, (tuple, list)) else value
