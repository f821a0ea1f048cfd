"""What is timed and for how long: batch sizes, thread counts, rounds; and what the times of many calls amount to."""

from __future__ import annotations

import os
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from packhouse.judge import Array
from packhouse.probes import most_rows, repeated
from packhouse.spec import Spec


@dataclass(frozen=True)
class Limits:
    """seconds: that one format may take over the whole grid; what does not fit is left out, but for what is quick and
    for the smallest batch on one thread. cell: the part of it that one batch size on one number of threads takes where calls are fast; the
    first of all takes it twice. block_s: in each round a format is called for about so long, so that its CPU time is
    more than a clock's tick. warm_up: calls before, at least and at most. first_rounds, rounds: at least, where calls
    are slow. threads: one, and all processors up to this many."""

    seconds: float = 0.5
    cell: float = 0.08
    block_s: float = 0.002
    warm_up: tuple[int, int] = (3, 8)
    first_rounds: int = 8
    rounds: int = 5
    batches: tuple[int, ...] = (1, 8, 32)
    threads: int = 4

    @property
    def cell_s(self) -> float:
        return self.seconds * self.cell


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
