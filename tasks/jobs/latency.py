"""What is timed and for how long: batch sizes, thread counts, rounds; and what the times of many calls amount to."""

from __future__ import annotations

import math
import os
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from packhouse.formats.arrays import Array
from packhouse.parity.probes import most_rows, repeated
from packhouse.spec.model import Spec


@dataclass(frozen=True)
class Stint:
    """How long formats are timed at one place of the grid: at least `rounds[0]`; then until `rounds[1]` and `cpu_s` are
    reached, which a busy machine does not shorten, or `wall_s` is over. Seconds are of one format."""

    rounds: tuple[int, int]
    cpu_s: float
    wall_s: float

    def over(self, rounds: int, cpu_s: float, wall_s: float) -> bool:
        reached = rounds >= self.rounds[1] and cpu_s >= self.cpu_s
        return rounds >= self.rounds[0] and (reached or wall_s >= self.wall_s)


@dataclass(frozen=True)
class Limits:
    """seconds: that one format may take over the whole grid; what does not fit is left out, but for what is quick and
    for the smallest batch on one thread. first: the part of it that this one may take where calls are slow; cell: the
    part that any place takes where they are fast, on one thread up to `patience` times that on a busy machine. block_s:
    in each round a format is called for about so long, so that its CPU time is more than a clock's tick. warm_up: calls
    before, at least and at most. first_rounds: at least, and until the first part is over; rounds: at least, at any
    other place. threads: one, and all processors up to this."""

    seconds: float = 0.5
    first: float = 0.6
    cell: float = 0.08
    patience: float = 3.0
    block_s: float = 0.002
    warm_up: tuple[int, int] = (3, 8)
    first_rounds: tuple[int, int] = (8, 40)
    rounds: int = 5
    batches: tuple[int, ...] = (1, 8, 32)
    threads: int = 4

    @property
    def cell_s(self) -> float:
        return self.seconds * self.cell

    @property
    def smallest(self) -> Stint:
        """For the smallest batch on one thread."""
        return Stint(self.first_rounds, self.cell_s, self.seconds * self.first)

    def other(self, threads: int, block: int) -> Stint:
        """block: the fewest calls that a format has in a round. With more threads no ratios of rounds are taken, and a
        busy machine makes each call many times longer; then so many calls are enough."""
        if threads == 1:
            return Stint((self.rounds, self.rounds), self.cell_s, self.cell_s * self.patience)
        rounds = math.ceil(self.rounds / block)
        return Stint((rounds, rounds), self.cell_s * threads, self.cell_s)


BEYOND = 2
"""A percentile is told where at least so many calls lie beyond it: p95 from 40 calls, p99 from 200."""


def batch_sizes(spec: Spec, samples: Mapping[str, Array], wanted: Sequence[int]) -> tuple[int | None, ...]:
    """The wanted sizes, each moved into what the axis allows and a probe may hold; (None,) without a batch axis."""
    if spec.batch is None:
        return (None,)
    axis = spec.axes[spec.batch]
    most = most_rows(axis, _evaluation(spec, samples))
    return tuple(sorted({min(max(size, axis.min), most) for size in wanted}))


def thread_counts(processors: int, most: int) -> tuple[int, ...]:
    return tuple(sorted({1, min(processors, most)}))


def usable_processors() -> int:
    """Those that this process may run on."""
    return len(os.sched_getaffinity(0))


def inputs_of(spec: Spec, samples: Mapping[str, Array], batch: int | None) -> dict[str, Array]:
    """The first evaluation samples, from the first again where there are fewer; None: the first one as it is."""
    rows = _evaluation(spec, samples)
    if batch is None:
        return {name: np.ascontiguousarray(array[0]) for name, array in rows.items()}
    return {name: repeated(array, 0, batch) for name, array in rows.items()}


def _evaluation(spec: Spec, samples: Mapping[str, Array]) -> dict[str, Array]:
    return {tensor.name: samples[f"evaluation.{tensor.name}"] for tensor in spec.inputs}


def percentile(times: Sequence[float], percent: int) -> float | None:
    """None: fewer than BEYOND calls lie beyond it, so that it would be one call's bad luck."""
    if len(times) * (100 - percent) < BEYOND * 100:
        return None
    return statistics.quantiles(times, n=100, method="inclusive")[percent - 1]


def expected_s(seen: Mapping[int | None, float], batch: int | None) -> float:
    """Seconds of one call of each format at a batch size, by what was seen: at that size, else in proportion to the
    largest one seen. 0: nothing was seen yet."""
    if batch in seen or not seen:
        return seen.get(batch, 0.0)
    largest = max(size for size in seen if size is not None)
    return seen[largest] * (batch or 1) / largest
