"""The yardstick of a case: the rounding that fp32 itself shows against a float64 run of the same model. Pure.

docs/parity.md has the rule and where its numbers were measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.generic]

QUIET_SCALE = 2.0**-12
"""Where an output is (nearly) zero in one case, its errors are still of the size that its other cases give them."""

TORN_SCALED: Mapping[str, float] = {"float16": 2e-2, "float32": 1e-3, "float64": 1e-3}
"""Where the model's answers in fp32 and in float64 differ by more than this part of the output's largest value, that is
no rounding: they went different ways, at a step of `round`, `floor` or a threshold. Some 400 times the largest error of
a healthy fp32 model, ten times that of a float16 one."""

FLOAT64_SLACK = 16.0
"""A float64 output has no finer reference, so that its own error reads as nothing: instead of a unit in the last place,
so many are taken for its rounding."""


@dataclass(frozen=True)
class Error:
    """The size of an error over the values of one output: largest, and root mean square."""

    max: float
    rms: float

    def at_least(self, other: Error, times: float) -> Error:
        return Error(max(self.max, other.max * times), max(self.rms, other.rms * times))


@dataclass(frozen=True)
class Yardstick:
    """What the errors of one output in one case are measured by.

    scale: the size of its values. rounding: of fp32, in the output's unit; None where there is no float64 run. torn:
    fp32 and float64 went different ways, so that the fp32 answer counts besides; see TORN_SCALED.
    """

    scale: float
    rounding: Error | None
    torn: bool = False


@dataclass(frozen=True)
class Rounding:
    """How one output of a model rounds, over its probes.

    quiet: the least scale of a case. loud: the largest value of the real cases. typical, most: the model's own error as
    a part of the case's scale, the median and the largest of the cases that are not torn; None without a float64 run.
    least: a unit in the last place. torn: see TORN_SCALED.
    """

    quiet: float
    loud: float
    typical: Error | None
    most: Error | None
    least: Error
    torn: float

    def yardstick(self, expected: Array, exact: Array | None) -> Yardstick:
        """The model's own error there, but never below what is typical for its other cases nor below a unit in the
        last place: one lucky case must not refuse a healthy format. Without a float64 run of this case, the largest
        error of the others."""
        scale = max(largest(expected if exact is None else exact), self.quiet)
        if self.typical is None or self.most is None:
            return Yardstick(scale, None)
        if exact is None:
            return Yardstick(scale, Error(0.0, 0.0).at_least(self.most, scale).at_least(self.least, scale))
        own = error(expected, exact)
        rounding = own.at_least(self.typical, scale).at_least(self.least, scale)
        return Yardstick(scale, rounding, torn=self.tears(own, scale))

    def tears(self, own: Error, scale: float) -> bool:
        return own.max > self.torn * max(scale, self.loud)


def rounding(
    expected: Sequence[Array], exact: Sequence[Array] | None, real: Sequence[bool], *, torn: float
) -> Rounding:
    """expected, exact, real: of one output, case by case. Values are finite. An empty case says nothing.

    What is quiet is measured by the real cases: a probe of large values may answer with any size, and must not make the
    others look like nothing.
    """
    truths = expected if exact is None else exact
    sizes = [largest(truth) for truth in truths]
    loud = max((size for size, ours in zip(sizes, real, strict=True) if ours), default=0.0) or max(sizes)
    unreferenced = Rounding(max(QUIET_SCALE * loud, 1e-30), loud, None, None, _least(expected[0].dtype), torn)
    if exact is None:
        return unreferenced
    scales = [max(size, unreferenced.quiet) for size in sizes]
    owns = [error(answer, truth) for answer, truth in zip(expected, exact, strict=True)]
    parts = [
        Error(own.max / scale, own.rms / scale)
        for own, scale, truth in zip(owns, scales, truths, strict=True)
        if truth.size and not unreferenced.tears(own, scale)
    ] or [Error(0.0, 0.0)]
    maxima, means = [part.max for part in parts], [part.rms for part in parts]
    typical, most = Error(float(np.median(maxima)), float(np.median(means))), Error(max(maxima), max(means))
    return Rounding(unreferenced.quiet, loud, typical, most, unreferenced.least, torn)


def _least(dtype: np.dtype[np.generic]) -> Error:
    ulp = float(np.finfo(str(dtype)).eps) * (FLOAT64_SLACK if dtype == np.float64 else 1.0)
    return Error(ulp, ulp / 2)


def error(got: Array, want: Array) -> Error:
    off = np.abs(got.astype(np.float64) - want.astype(np.float64))
    most = float(off.max()) if off.size else 0.0
    return Error(most, float(np.sqrt(np.mean((off / most) ** 2))) * most if most else 0.0)


def largest(array: Array) -> float:
    return float(np.abs(array.astype(np.float64)).max()) if array.size else 0.0
