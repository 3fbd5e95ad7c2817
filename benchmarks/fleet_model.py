"""A fleet of replicas as a discrete-event simulation: dispatch, admission, autoscaler, start and drain of pods.

Each replica works through its images in the order of their coming, at one speed, so that its queue is one number: the
time at which it will be free. (The service takes turns by seconds of the net between requests: the queue is as long,
and small images wait less than here.) Times are seconds, work is megapixels.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import simpy
from pydantic.dataclasses import dataclass as checked

from benchmarks.fleet_autoscaler import Autoscaler, Hpa, NotNegative, Positive

_TRIES = 4  # a refused request goes to three other replicas, as docker/haproxy/haproxy.cfg has it


@checked(frozen=True, slots=True)
class Fleet:
    """What a fleet is made of.

    Parameters
    ----------
    mpx_per_s
        Speed of a replica; ``unet-service bench`` measures it. By default a net of width 32 in bf16 on two CPU cores.
    overhead_s
        Seconds of an image besides its pixels: decoding, encoding, the way there and back.
    start_s
        From the autoscaler's decision until a pod is ready.
    drain_s
        How long a pod that leaves still takes requests, unready (UNET_DRAIN_DELAY_S); the time is paid for.
    max_backlog_s
        UNET_MAX_BACKLOG_S: beyond it a replica refuses.
    patience_s
        Seconds that a client waits in all before it gives up on refusals.
    dispatch
        ``connections``: fewest requests in work (HAProxy's leastconn); ``random`` (a Kubernetes Service); ``work``:
        least work, the ideal, for which the closed forms of one queue before all replicas hold.

    """

    mpx_per_s: Positive = 1.7
    overhead_s: NotNegative = 0.02
    start_s: NotNegative = 12.0
    drain_s: NotNegative = 5.0
    max_backlog_s: Positive = 120.0
    patience_s: NotNegative = 120.0
    dispatch: Literal["connections", "random", "work"] = "connections"


@dataclass(slots=True)
class Replica:
    """One pod."""

    number: int
    ready: bool = False
    leaving: bool = False
    free_at: float = 0.0
    in_work: int = 0
    since: float = 0.0
    version: int = 0
    """Of its entry in the queue of dispatch."""

    def backlog_s(self, now: float) -> float:
        """``unet_backlog_seconds``."""
        return max(0.0, self.free_at - now)


@dataclass(frozen=True, slots=True)
class Sample:
    """The fleet at one moment; counts are since the start."""

    t_s: float
    replicas: int
    backlog_s: float
    accepted: int
    refused: int
    offered_mpx: float


@dataclass(slots=True)
class Outcome:
    """What a simulation counted."""

    samples: list[Sample] = field(default_factory=list)
    waits_s: list[float] = field(default_factory=list)
    """From an image's first arrival until its work begins, patience included."""
    accepted: int = 0
    refused: int = 0
    """Answers 503 that a client saw; each of them asked again or gave up."""
    gave_up: int = 0
    offered_mpx: float = 0.0
    busy_s: float = 0.0
    replica_s: float = 0.0

    def wait_s(self, share: float) -> float:
        """Quantile of the waits, seconds; 0 where there was no image."""
        return float(np.quantile(self.waits_s, share)) if self.waits_s else 0.0

    @property
    def use(self) -> float:
        """Share of the paid time in which replicas computed."""
        return self.busy_s / self.replica_s if self.replica_s else 0.0


Process = Generator[simpy.Event, Any, None]
Arrivals = Iterator[tuple[float, float]]
"""Images as (time of arrival in s, size in Mpx), in order of time."""


class Simulation:
    """One run; see :func:`simulate`."""

    def __init__(self, fleet: Fleet, hpa: Hpa, seed: int) -> None:
        self.env = simpy.Environment()
        self.fleet = fleet
        self.hpa = hpa
        self.outcome = Outcome()
        self._random = np.random.default_rng(seed)
        self._numbers = itertools.count()
        self._replicas: dict[int, Replica] = {}
        self._heap: list[tuple[float, int, int]] = []
        self._ready: list[int] = []
        for _ in range(hpa.min_replicas):
            self._become_ready(self._add())

    @property
    def kept(self) -> list[Replica]:
        """Pods that the autoscaler counts: ready or starting, none that leaves."""
        return [replica for replica in self._replicas.values() if not replica.leaving]

    def arrivals(self, images: Arrivals) -> Process:
        """Let images come in."""
        for at, mpx in images:
            yield self.env.timeout(max(0.0, at - self.env.now))
            self.outcome.offered_mpx += mpx
            self.env.process(self._request(mpx))

    def autoscale(self) -> Process:
        """Run the control loop."""
        loop = Autoscaler(self.hpa)
        seen: list[tuple[int, int, float]] = []
        delay = max(1, round(self.hpa.metric_lag_s / self.hpa.sync_s)) if self.hpa.metric_lag_s else 0
        while True:
            yield self.env.timeout(self.hpa.sync_s)
            kept = self.kept
            ready = [replica for replica in kept if replica.ready]
            seen.append((len(ready), len(kept) - len(ready), sum(r.backlog_s(self.env.now) for r in ready)))
            known, unready, backlog_s = seen[max(0, len(seen) - 1 - delay)]
            del seen[: max(0, len(seen) - 1 - delay)]
            wanted = loop.wanted(self.env.now, len(kept), known, unready, backlog_s)
            for _ in range(wanted - len(kept)):
                self.env.process(self._start(self._add()))
            # starting pods go first, then the youngest: what Kubernetes does with pods of equal rank
            for replica in sorted(kept, key=lambda r: (r.ready, -r.since))[: max(0, len(kept) - wanted)]:
                self.env.process(self._drain(replica))

    def watch(self, every_s: float) -> Process:
        """Take samples."""
        while True:
            now, outcome = self.env.now, self.outcome
            ready = [replica for replica in self._replicas.values() if replica.ready and not replica.leaving]
            backlog_s = sum(replica.backlog_s(now) for replica in ready) / max(1, len(ready))
            outcome.samples.append(
                Sample(now, len(ready), backlog_s, outcome.accepted, outcome.refused, outcome.offered_mpx)
            )
            yield self.env.timeout(every_s)

    def end(self) -> Outcome:
        """Close the books at the present time."""
        for replica in self._replicas.values():
            self.outcome.replica_s += self.env.now - replica.since
        return self.outcome

    def _request(self, mpx: float) -> Process:
        work_s = mpx / self.fleet.mpx_per_s + self.fleet.overhead_s
        came = self.env.now
        while True:
            replica, retry_s = self._choose(work_s)
            if replica is not None:
                yield from self._work(replica, work_s, came)
                return
            self.outcome.refused += 1
            if self.env.now + retry_s - came > self.fleet.patience_s:
                self.outcome.gave_up += 1
                return
            yield self.env.timeout(retry_s)

    def _work(self, replica: Replica, work_s: float, came: float) -> Process:
        waiting_s = replica.backlog_s(self.env.now)
        self.outcome.accepted += 1
        self.outcome.waits_s.append(self.env.now - came + waiting_s)
        self.outcome.busy_s += work_s
        replica.free_at = max(self.env.now, replica.free_at) + work_s
        replica.in_work += 1
        self._push(replica)
        yield self.env.timeout(waiting_s + work_s)
        replica.in_work -= 1
        self._push(replica)

    def _choose(self, work_s: float) -> tuple[Replica | None, float]:
        """Replica that takes a request, or None and the shortest time to come back, seconds."""
        retry_s = self.fleet.max_backlog_s
        tried: list[tuple[float, int, int]] = []
        chosen = None
        while chosen is None and len(tried) < _TRIES and (entry := self._next()) is not None:
            replica = self._replicas[entry[1]]
            waiting_s = replica.backlog_s(self.env.now)
            # as service/engine/admission/admission.py: an idle replica takes anything
            if waiting_s == 0 or waiting_s + work_s <= self.fleet.max_backlog_s:
                chosen = replica
            else:
                retry_s = min(retry_s, waiting_s, waiting_s + work_s - self.fleet.max_backlog_s)
                tried.append(entry)
            if self.fleet.dispatch != "connections":
                break
        for entry in tried:
            heapq.heappush(self._heap, entry)
        return chosen, max(1.0, math.ceil(retry_s))

    def _next(self) -> tuple[float, int, int] | None:
        """Take the best entry that still holds; entries that do not are thrown away when they come up."""
        if self.fleet.dispatch == "random":
            return (0.0, self._ready[int(self._random.integers(len(self._ready)))], 0) if self._ready else None
        while self._heap:
            entry = heapq.heappop(self._heap)
            replica = self._replicas.get(entry[1])
            if replica is not None and not replica.leaving and entry[2] == replica.version:
                return entry
        return None

    def _rank(self, replica: Replica) -> float:
        return float(replica.in_work) if self.fleet.dispatch == "connections" else replica.free_at

    def _push(self, replica: Replica) -> None:
        if replica.ready and not replica.leaving and self.fleet.dispatch != "random":
            replica.version += 1
            heapq.heappush(self._heap, (self._rank(replica), replica.number, replica.version))

    def _add(self) -> Replica:
        replica = Replica(next(self._numbers), since=self.env.now)
        self._replicas[replica.number] = replica
        return replica

    def _start(self, replica: Replica) -> Process:
        yield self.env.timeout(self.fleet.start_s)
        if not replica.leaving:
            self._become_ready(replica)

    def _become_ready(self, replica: Replica) -> None:
        replica.ready = True
        self._ready.append(replica.number)
        self._push(replica)

    def _drain(self, replica: Replica) -> Process:
        replica.leaving = True
        if replica.ready:
            self._ready.remove(replica.number)
            yield self.env.timeout(max(self.fleet.drain_s, replica.backlog_s(self.env.now)))
        self.outcome.replica_s += self.env.now - replica.since
        del self._replicas[replica.number]


def simulate(
    fleet: Fleet,
    hpa: Hpa,
    images: Arrivals,
    duration_s: float,
    *,
    seed: int = 0,
    every_s: float = 60.0,
) -> Outcome:
    """Run a fleet for ``duration_s`` seconds; the same seed gives the same outcome."""
    simulation = Simulation(fleet, hpa, seed)
    simulation.env.process(simulation.arrivals(images))
    simulation.env.process(simulation.watch(every_s))
    if hpa.max_replicas > hpa.min_replicas:
        simulation.env.process(simulation.autoscale())
    simulation.env.run(until=duration_s)
    return simulation.end()
