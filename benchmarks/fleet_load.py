"""Arrivals of images: a day with its hours, and plates that come all at once."""

from __future__ import annotations

import heapq
import math
from bisect import bisect
from collections.abc import Iterator
from typing import Annotated

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass as checked

from benchmarks.fleet_autoscaler import NotNegative, Positive

DAY_S = 86_400.0
MOST_IMAGES = 5_000_000
"""Of one run: a minute and a half of computing where few are refused."""


@checked(frozen=True, slots=True)
class Load:
    """What a facility sends.

    Parameters
    ----------
    images_per_s
        Mean of a day, bursts not counted.
    night
        Rate at three in the morning over the rate at three in the afternoon, a cosine between; 1 for no profile.
    bursts_per_day
        Plates or slides that come at once, at any hour, Poisson.
    burst_images, burst_s
        Images of one, and the seconds in which they come.
    sizes_mpx, shares
        Mix of image sizes.

    """

    images_per_s: NotNegative = 4.0
    night: Annotated[float, Field(ge=0, le=1)] = 0.1
    bursts_per_day: NotNegative = 12.0
    burst_images: Annotated[int, Field(ge=1, le=1_000_000)] = 1536
    burst_s: NotNegative = 120.0
    sizes_mpx: tuple[Positive, ...] = (0.26, 1.0, 4.2)
    shares: tuple[NotNegative, ...] = (0.2, 0.6, 0.2)

    @property
    def mean_mpx(self) -> float:
        """Size of an image on average."""
        return float(np.dot(self.sizes_mpx, self.shares) / sum(self.shares))

    @property
    def all_images_per_s(self) -> float:
        """Mean of a day, bursts included."""
        return self.images_per_s + self.bursts_per_day * self.burst_images / DAY_S

    def rate(self, t_s: float) -> float:
        """Images per second without bursts; the simulation begins at midnight."""
        peak = 2 / (1 + self.night)
        swing = (1 - math.cos(2 * math.pi * (t_s / DAY_S - 3 / 24))) / 2
        return self.images_per_s * peak * (self.night + (1 - self.night) * swing)


def arrivals(load: Load, duration_s: float, seed: int = 0) -> Iterator[tuple[float, float]]:
    """Images as (time in s, size in Mpx), in order of time."""
    random = np.random.default_rng(seed)
    starts = np.sort(random.uniform(0, duration_s, random.poisson(load.bursts_per_day * duration_s / DAY_S)))
    bursts = [t for start in starts for t in np.sort(random.uniform(start, start + load.burst_s, load.burst_images))]
    bounds = (np.cumsum(load.shares) / sum(load.shares))[:-1].tolist()
    for t_s in heapq.merge(_poisson(load, duration_s, random), sorted(bursts)):
        yield float(t_s), load.sizes_mpx[bisect(bounds, random.random())]


def _poisson(load: Load, duration_s: float, random: np.random.Generator) -> Iterator[float]:
    """Poisson arrivals of a rate that changes, by thinning (Lewis and Shedler, 1979)."""
    most = load.images_per_s * 2 / (1 + load.night)
    t_s = 0.0
    while most > 0 and (t_s := t_s + random.exponential(1 / most)) < duration_s:
        if random.uniform() * most <= load.rate(t_s):
            yield t_s
