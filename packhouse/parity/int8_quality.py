"""How good an INT8 format is beside its fp32 model, over the evaluation samples. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from packhouse.parity.rounding import Array


@dataclass(frozen=True)
class Quality:
    """Values are NaN where they do not apply. sqnr_db: 10 log10(sum y^2 / sum (y - q)^2), the lowest of all floating
    outputs. agreement: part of samples with the same largest score, the lowest of all score outputs. accuracy: part of
    samples whose label has the largest score (first score output). plain_sqnr_db: the lowest of floating outputs that
    are no scores. broken: NaN or infinite values where the fp32 model has none."""

    sqnr_db: float
    agreement: float
    accuracy: float
    base_accuracy: float
    plain_sqnr_db: float = math.nan
    broken: int = 0


@dataclass
class Share:
    """So many of so many."""

    count: int = 0
    total: int = 0

    def add(self, hits: NDArray[np.bool_]) -> None:
        self.count, self.total = self.count + int(np.count_nonzero(hits)), self.total + hits.size

    @property
    def part(self) -> float:
        return self.count / self.total if self.total else math.nan


@dataclass
class Noise:
    """Sums of squares: of the values, and of the errors."""

    signal: float = 0.0
    noise: float = 0.0

    def add(self, base: Array, candidate: Array) -> None:
        truth = base.astype(np.float64)
        self.noise += float(np.sum((truth - candidate.astype(np.float64)) ** 2))
        self.signal += float(np.sum(truth**2))

    @property
    def sqnr_db(self) -> float:
        if self.noise == 0:
            return math.inf
        heard = self.signal > 0 and math.isfinite(self.noise)
        return 10 * math.log10(self.signal / self.noise) if heard else -math.inf


@dataclass
class Tally:
    """Adds the samples up, some at a time. scores: names of the outputs that hold scores."""

    scores: Sequence[str]
    _noise: dict[str, Noise] = field(default_factory=dict)
    _same: dict[str, Share] = field(default_factory=dict)
    _right: Share = field(default_factory=Share)
    _base_right: Share = field(default_factory=Share)
    _broken: int = 0

    def add(self, base: dict[str, Array], candidate: dict[str, Array], labels: NDArray[np.int64] | None) -> None:
        """Equal names and shapes: the judge's form was checked."""
        for name, array in base.items():
            if np.issubdtype(array.dtype, np.inexact):
                self._noise.setdefault(name, Noise()).add(array, candidate[name])
                self._broken += int(np.sum(np.isfinite(array) & ~np.isfinite(candidate[name])))
        for name in self.scores:
            self._same.setdefault(name, Share()).add(_top(base[name]) == _top(candidate[name]))
        if labels is not None and self.scores:
            self._right.add(_top(candidate[self.scores[0]]).reshape(-1) == labels)
            self._base_right.add(_top(base[self.scores[0]]).reshape(-1) == labels)

    def quality(self) -> Quality:
        found = {name: noise.sqnr_db for name, noise in self._noise.items()}
        return Quality(
            sqnr_db=min(found.values(), default=math.nan),
            agreement=min((same.part for same in self._same.values()), default=math.nan),
            accuracy=self._right.part,
            base_accuracy=self._base_right.part,
            plain_sqnr_db=min((db for name, db in found.items() if name not in self.scores), default=math.nan),
            broken=self._broken,
        )


def sqnr_db(base: Array, candidate: Array) -> float:
    """Signal to quantisation noise in dB; infinite where both are equal, minus infinite where there is no signal."""
    found = Noise()
    found.add(base, candidate)
    return found.sqnr_db


def has_signal(array: Array) -> bool:
    """A floating output that is not all zero: only there is a signal-to-noise ratio."""
    return bool(np.issubdtype(array.dtype, np.inexact)) and bool(np.any(array))


def _top(scores: Array) -> NDArray[np.int64]:
    return np.asarray(np.argmax(scores, axis=-1), dtype=np.int64)
