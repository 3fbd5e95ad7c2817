"""Pixels for work that ends when nobody waits for it: a thread cannot be stopped, but it can look up now and then."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from model.pixels import Pixels
from service.engine.admission.ticket import Ticket


@dataclass(frozen=True, slots=True)
class WantedPixels:
    """Pixels whose parts are there as long as somebody waits for what is made of them.

    Parameters
    ----------
    pixels
        Where they lie.
    ticket
        Of the request that they belong to; reading or writing raises what its
        :meth:`~service.engine.admission.ticket.Ticket.check_wanted` does.

    """

    pixels: Pixels
    ticket: Ticket

    @property
    def shape(self) -> tuple[int, ...]:
        """Length of each axis."""
        return self.pixels.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the elements."""
        return self.pixels.dtype

    def __getitem__(self, key: Any, /) -> Any:  # noqa: ANN401 - as numpy has it
        self.ticket.check_wanted()
        return self.pixels[key]

    def __setitem__(self, key: Any, value: Any, /) -> None:  # noqa: ANN401
        self.ticket.check_wanted()
        self.pixels[key] = value
