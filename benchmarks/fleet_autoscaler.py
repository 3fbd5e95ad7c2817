"""The HorizontalPodAutoscaler (autoscaling/v2) for one metric of type Pods with an AverageValue.

After kubernetes/pkg/controller/podautoscaler: ``replica_calculator.go`` (the count) and ``horizontal.go``
(stabilisation windows and policies).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Annotated, TypeAlias

from pydantic import Field
from pydantic.dataclasses import dataclass as checked

# outer limits at which sums and quotients are still finite
Positive: TypeAlias = Annotated[float, Field(ge=0.001, le=1e9, allow_inf_nan=False)]
NotNegative: TypeAlias = Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)]
Count: TypeAlias = Annotated[int, Field(ge=1, le=10_000)]


@checked(frozen=True, slots=True)
class Policy:
    """At most ``pods`` or ``percent`` of change, whichever is not zero, in ``period_s`` seconds."""

    pods: Annotated[int, Field(ge=0)] = 0
    percent: Annotated[int, Field(ge=0)] = 0
    period_s: Positive = 60.0


@checked(frozen=True, slots=True)
class Hpa:
    """The manifest's fields.

    Parameters
    ----------
    target_s
        ``averageValue`` of ``unet_backlog_seconds``.
    min_replicas, max_replicas
        Bounds.
    up_window_s, down_window_s
        ``stabilizationWindowSeconds``.
    up, down
        Policies; the one that allows most counts (``selectPolicy: Max``).
    sync_s, tolerance
        Of the controller manager.
    metric_lag_s
        Age of the metric: scrape, adapter.

    """

    target_s: Positive = 20.0
    min_replicas: Count = 2
    max_replicas: Count = 50
    up_window_s: NotNegative = 0.0
    down_window_s: NotNegative = 300.0
    up: tuple[Policy, ...] = (Policy(percent=100, period_s=15), Policy(pods=2, period_s=15))
    down: tuple[Policy, ...] = (Policy(percent=10, period_s=60), Policy(pods=1, period_s=60))
    sync_s: Annotated[Positive, Field(ge=1)] = 15.0
    tolerance: NotNegative = 0.1
    metric_lag_s: NotNegative = 15.0

    def __post_init__(self) -> None:
        """Check the bounds against each other."""
        if self.min_replicas > self.max_replicas:
            raise ValueError(
                f"--min-replicas is {self.min_replicas}, --max-replicas {self.max_replicas}; lower the one or raise "
                "the other"
            )


@dataclass(slots=True)
class Autoscaler:
    """The loop's memory: recommendations and changes."""

    hpa: Hpa
    _recommended: list[tuple[float, int]] = field(default_factory=list)
    _changes: list[tuple[float, int]] = field(default_factory=list)

    def wanted(self, now: float, current: int, ready: int, unready: int, backlog_s: float) -> int:
        """Replicas that there should be.

        Parameters
        ----------
        now
            Seconds.
        current
            ``spec.replicas``.
        ready, unready
            Pods when the metric was taken; those that are unready report nothing.
        backlog_s
            Sum of the metric over ready pods.

        """
        hpa = self.hpa
        proposed = desired(current, ready, unready, backlog_s, target=hpa.target_s, tolerance=hpa.tolerance)
        stabilised = self._stabilise(now, current, proposed)
        limited = self._limit(now, current, stabilised)
        result = min(max(limited, hpa.min_replicas), hpa.max_replicas)
        if result != current:
            self._changes.append((now, result - current))
        return result

    def _stabilise(self, now: float, current: int, proposed: int) -> int:
        hpa = self.hpa
        longest = max(hpa.up_window_s, hpa.down_window_s)
        self._recommended = [(at, count) for at, count in self._recommended if at > now - longest]
        up = min([proposed, *(count for at, count in self._recommended if at > now - hpa.up_window_s)])
        down = max([proposed, *(count for at, count in self._recommended if at > now - hpa.down_window_s)])
        self._recommended.append((now, proposed))
        return min(max(current, up), down)

    def _limit(self, now: float, current: int, wanted: int) -> int:
        """Hold a change to what the policies allow, counted from the replicas at the start of each period."""
        if wanted > current:
            limits = []
            for policy in self.hpa.up:
                start = current - self._changed(now, policy.period_s, +1)
                limits.append(start + policy.pods if policy.pods else math.ceil(start * (1 + policy.percent / 100)))
            return min(wanted, max(current, *limits))
        if wanted < current:
            limits = []
            for policy in self.hpa.down:
                start = current + self._changed(now, policy.period_s, -1)
                limits.append(start - policy.pods if policy.pods else math.floor(start * (1 - policy.percent / 100)))
            return max(wanted, min(current, *limits))
        return current

    def _changed(self, now: float, period_s: float, sign: int) -> int:
        """Replicas that came (sign 1) or went (-1) in the period."""
        return sum(abs(change) for at, change in self._changes if at > now - period_s and change * sign > 0)


def desired(current: int, ready: int, unready: int, total: float, *, target: float, tolerance: float) -> int:
    """Count of replicas by the metric alone.

    Unready pods count as idle before the fleet grows, and as exactly on target before it shrinks, so that pods that
    are about to help are not asked for twice; where they turn the decision round, nothing is done.
    """
    if not ready:
        return current
    ratio = total / ready / target
    if not unready:
        return current if abs(ratio - 1) <= tolerance else math.ceil(ratio * ready)
    assumed = 0.0 if ratio > 1 else target
    corrected = (total + assumed * unready) / (ready + unready) / target
    turned = (ratio > 1) != (corrected > 1)
    if abs(corrected - 1) <= tolerance or turned:
        return current
    return math.ceil(corrected * (ready + unready))
