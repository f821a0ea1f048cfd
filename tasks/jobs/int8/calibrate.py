"""Calibration: the range of every activation that a static operator rounds, from the calibration split alone.

Memory: the activations of one batch of a few samples, and one histogram of BINS counts for each tensor.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from packhouse.formats.arrays import Array
from packhouse.formats.runtime import Vocabularies, open_format
from packhouse.spec.model import Format
from tasks.jobs.evaluation import Batch
from tasks.jobs.int8.recipes import Ranges
from tasks.jobs.onnx.graph import Draft, Graph

BINS = 2048
LEVELS = 256
OUTSIDE = 1e-4
"""Part of the values that the percentile leaves outside of the range, half of it at each end."""

CUTS = (0.0, 1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
"""Parts of the values left outside that entropy chooses among."""


def activations(
    graph: Graph, names: Iterable[str], batches: Iterable[Batch], file: Path, text: Vocabularies
) -> Iterator[dict[str, Array]]:
    """The tensors of these names, batch by batch. file: where the graph with more outputs is written."""
    wanted = list(dict.fromkeys(names))
    draft = Draft(graph)
    for node in graph.nodes:
        draft.keep(node)
    draft.outputs = [name for name in wanted if name not in graph.outputs and name not in graph.inputs]
    draft.save(file)
    run = open_format(Format.ONNX, file, outputs=(), text=text)
    for batch in batches:
        seen = {**batch.inputs, **run(batch.inputs)}
        yield {name: seen[name] for name in wanted}


@dataclass
class Seen:
    """What one tensor was, so far. counts: by BINS equal steps from low to high; filled in a second pass, when these
    are known."""

    low: float = 0.0
    high: float = 0.0
    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(BINS, np.int64))

    def widen(self, values: Array) -> None:
        if values.size:
            self.low, self.high = min(self.low, float(values.min())), max(self.high, float(values.max()))

    def count(self, values: Array) -> None:
        if self.high > self.low:
            self.counts += np.histogram(values, BINS, (self.low, self.high))[0]


class Calibration:
    """Ranges of the tensors of these names. Passes over the samples are made when they are first needed."""

    def __init__(self, graph: Graph, batches: list[Batch], file: Path, text: Vocabularies) -> None:
        self._graph, self._batches, self._file, self._text = graph, batches, file, text
        self._seen: dict[str, Seen] = {}
        self._counted: set[str] = set()
        self._room = room(sum(batch.kept for batch in batches))

    def ranges(self, names: Iterable[str], method: Ranges) -> dict[str, tuple[float, float]]:
        wanted = list(dict.fromkeys(names))
        self._watch([name for name in wanted if name not in self._seen])
        if method is not Ranges.MINMAX:
            self._count([name for name in wanted if name not in self._counted])
        found = {name: bounds(self._seen[name], method) for name in wanted}
        return {name: (low * self._room, high * self._room) for name, (low, high) in found.items()}

    def _watch(self, names: list[str]) -> None:
        for values in self._values(names):
            for name, value in values.items():
                self._seen.setdefault(name, Seen()).widen(value)

    def _count(self, names: list[str]) -> None:
        for values in self._values(names):
            for name, value in values.items():
                self._seen[name].count(value)
        self._counted |= set(names)

    def _values(self, names: list[str]) -> Iterator[Mapping[str, Array]]:
        if not names:
            return iter(())
        return activations(self._graph, names, self._batches, self._file, self._text)


def room(samples: int) -> float:
    """Factor of a range: the fewer samples were seen, the further the next one will lie outside."""
    return 1 + 1 / math.sqrt(max(samples, 1))


def bounds(seen: Seen, method: Ranges) -> tuple[float, float]:
    """The range that is rounded to 256 steps; what lies outside is clipped to its ends."""
    if method is Ranges.MINMAX or not seen.counts.any():
        return seen.low, seen.high
    if method is Ranges.PERCENTILE:
        return _cut(seen, OUTSIDE)
    return min((_cut(seen, part) for part in CUTS), key=lambda ends: _divergence(seen, *ends))


def _cut(seen: Seen, outside: float) -> tuple[float, float]:
    """The range without `outside` of the values, half of it at each end; zero stays inside."""
    below = np.cumsum(seen.counts) / seen.counts.sum()
    edges = np.linspace(seen.low, seen.high, BINS + 1)
    first = int(np.searchsorted(below, outside / 2, side="right"))
    last = int(np.searchsorted(below, 1 - outside / 2, side="left"))
    return min(float(edges[first]), 0.0), max(float(edges[min(last + 1, BINS)]), 0.0)


def _divergence(seen: Seen, low: float, high: float) -> float:
    """Kullback and Leibler's, from what was seen to what 256 steps over the range leave of it: what lies outside
    counts at the ends, and each step spreads its values evenly over the bins that had any."""
    centres = np.linspace(seen.low, seen.high, BINS + 1)[:-1] + (seen.high - seen.low) / BINS / 2
    step = (high - low) / (LEVELS - 1) or 1.0
    place = np.clip(np.rint((centres - low) / step), 0, LEVELS - 1).astype(np.int64)
    inside = (centres >= low) & (centres <= high)
    kept = np.where(inside, seen.counts, 0)
    filled = np.bincount(place, kept > 0, LEVELS)
    spread = (np.bincount(place, kept, LEVELS) / np.maximum(filled, 1))[place] * (kept > 0)
    clipped = kept.astype(np.float64)
    for end, outer in ((np.argmax(inside), centres < low), (BINS - 1 - np.argmax(inside[::-1]), centres > high)):
        clipped[end] += seen.counts[outer].sum()
    p, q = clipped / clipped.sum(), np.maximum(spread / max(spread.sum(), 1.0), 1e-12)
    some = p > 0
    return float(np.sum(p[some] * np.log(p[some] / q[some])))
