"""The judge: does a format compute what the trained model computes? Pure: it touches no file and runs no model.

Checks come in a fixed order, each with its own words: names, dtype, shape, finiteness, distance. An fp32 format is
held to the rounding that fp32 itself shows against a float64 run of the same model, so that nobody has to guess a
tolerance. docs/parity.md has the rule, where its numbers were measured and why `allclose` is not used.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.generic]
Outputs = Mapping[str, Array]

QUIET_SCALE = 2.0**-12
"""Where an output is (nearly) zero in one case, its errors are still of the size that its other cases give them."""

UNREFERENCED_SCALED = {"float16": 1e-2, "float32": 1e-5, "float64": 2e-14}
"""Largest error, as a part of the output's largest value, where no float64 run exists. About 84 units in the last
place of fp32 and of float64; ten of float16, whose sums are kept in fp32."""

FLOAT64_SLACK = 32.0
"""A float64 output has no finer reference, so that its own error reads as nothing: instead of half a unit in the last
place, so many halves are taken for its rounding."""


@dataclass(frozen=True)
class Case:
    """One set of inputs and what the trained model answered.

    inputs: name -> array. expected: output name -> array, as the model computes it. exact: the same in float64, for
    floating outputs; None where the model can not run in double. real: made of the source's own samples.
    """

    name: str
    inputs: Mapping[str, Array]
    expected: Outputs
    exact: Outputs | None
    real: bool


@dataclass(frozen=True)
class Ratio:
    """Error against float64 in units of fp32's own. Largest and root mean square."""

    max: float = 8.0
    rms: float = 6.0


@dataclass(frozen=True)
class Absolute:
    """|error| <= atol + rtol * |expected|, for every element."""

    atol: float
    rtol: float


Tolerance = Ratio | Absolute


@dataclass(frozen=True)
class Deviation:
    """How far one output is off, over all cases. ratios: see Ratio, NaN where there is no float64 run. max_abs: in
    the output's unit. scaled: max_abs / largest value of that case."""

    output: str
    max_ratio: float
    rms_ratio: float
    max_abs: float
    scaled: float


@dataclass(frozen=True)
class Judgement:
    """refusal: one clear line, empty for a pass. deviations: of the outputs that came as far as distance."""

    refusal: str
    deviations: tuple[Deviation, ...] = ()


def judge(cases: Sequence[Case], answers: Sequence[Outputs], tolerance: Tolerance) -> Judgement:
    """Compares a format's answers with the trained model's, case by case, then all cases together for distance.

    Law: judge(cases, [c.expected for c in cases], Ratio()) passes, if the expected values are finite and each output
    has a value in some case. Raises ValueError: no cases, or another number of answers than of cases (the caller's
    mistake).
    """
    if refusal := _forms(cases, answers):
        return Judgement(refusal)
    deviations = []
    for output in cases[0].expected:
        refusal, deviation = _distance(output, cases, answers, tolerance)
        deviations.append(deviation)
        if refusal:
            return Judgement(refusal, tuple(deviations))
    return Judgement("", tuple(deviations))


def _forms(cases: Sequence[Case], answers: Sequence[Outputs]) -> str:
    """What the form of any answer has against it. Nothing compared is nothing proven: an output may be empty in one
    case (no boxes found), but not in all."""
    if not cases or len(cases) != len(answers):
        raise ValueError(f"{len(cases)} cases and {len(answers)} answers: the judge needs as many, and at least one")
    for case, answer in zip(cases, answers, strict=True):
        if list(case.expected) != list(cases[0].expected):
            return f"case {case.name!r}: the model has {_names(case.expected)}, before {_names(cases[0].expected)}"
        if refusal := _form(case, answer):
            return f"case {case.name!r}: {refusal}"
    if not cases[0].expected:
        return "the model has no outputs: there is nothing to compare"
    for name in cases[0].expected:
        if not any(case.expected[name].size for case in cases):
            return f"output {name!r} is empty in every case: there is nothing to compare"
    return ""


def _form(case: Case, answer: Outputs) -> str:
    """Names and their order, dtype, shape, finiteness. Empty: all as expected."""
    if list(answer) != list(case.expected):
        return f"outputs are {_names(answer)}, the model has {_names(case.expected)}"
    for name, want in case.expected.items():
        got = answer[name]
        if got.dtype != want.dtype:
            return f"output {name!r} is {got.dtype}, the model gives {want.dtype}"
        if got.shape != want.shape:
            return f"output {name!r} has shape {got.shape}, the model gives {want.shape}"
        if np.issubdtype(want.dtype, np.inexact):
            truth = (case.exact or {}).get(name, want)
            for array, whose in ((got, ""), (want, " in the model's own answer"), (truth, " in its float64 run")):
                if broken := int(np.count_nonzero(~np.isfinite(array))):
                    return f"output {name!r} has {broken} of {array.size} values that are NaN or infinite{whose}"
    return ""


def _distance(
    name: str, cases: Sequence[Case], answers: Sequence[Outputs], tolerance: Tolerance
) -> tuple[str, Deviation]:
    dtype = cases[0].expected[name].dtype
    if not np.issubdtype(dtype, np.inexact):
        return _equal(name, cases, answers)
    if isinstance(tolerance, Ratio) and all(case.exact is not None for case in cases):
        return _by_rounding(name, cases, answers, tolerance)
    return _by_bound(name, cases, answers, tolerance)


def _equal(name: str, cases: Sequence[Case], answers: Sequence[Outputs]) -> tuple[str, Deviation]:
    """Integers and booleans are compared exactly."""
    for case, answer in zip(cases, answers, strict=True):
        differ = int(np.count_nonzero(case.expected[name] != answer[name]))
        if differ:
            size = case.expected[name].size
            reason = f"case {case.name!r}: output {name!r} differs in {differ} of {size} values"
            return reason, Deviation(name, math.nan, math.nan, math.inf, math.inf)
    return "", Deviation(name, math.nan, math.nan, 0.0, 0.0)


def _by_rounding(
    name: str, cases: Sequence[Case], answers: Sequence[Outputs], tolerance: Ratio
) -> tuple[str, Deviation]:
    """The yardstick of a case is the model's own fp32 error there, but never below what is typical for its other
    cases nor below half a unit in the last place: one lucky case must not refuse a healthy format. An empty case says
    nothing of what is typical."""
    exact = [np.asarray(case.exact[name] if case.exact else None, np.float64) for case in cases]
    own = [np.abs(case.expected[name].astype(np.float64) - truth) for case, truth in zip(cases, exact, strict=True)]
    scales = _scales(cases, exact)
    half_ulp = float(np.finfo(str(cases[0].expected[name].dtype)).eps) / 2
    if cases[0].expected[name].dtype == np.float64:
        half_ulp *= FLOAT64_SLACK
    typical_max = float(np.median([_max(e) / s for e, s in zip(own, scales, strict=True) if e.size]))
    typical_rms = float(np.median([_rms(e) / s for e, s in zip(own, scales, strict=True) if e.size]))
    worst, reason = Deviation(name, 0.0, 0.0, 0.0, 0.0), ""
    for case, answer, truth, error, scale in zip(cases, answers, exact, own, scales, strict=True):
        off = np.abs(answer[name].astype(np.float64) - truth)
        max_ratio = _max(off) / max(_max(error), typical_max * scale, half_ulp * scale)
        rms_ratio = _rms(off) / max(_rms(error), typical_rms * scale, half_ulp * scale / 4)
        worst = _worse(worst, Deviation(name, max_ratio, rms_ratio, _max(off), _max(off) / scale))
        if not reason and not (max_ratio <= tolerance.max and rms_ratio <= tolerance.rms):
            reason = (
                f"case {case.name!r}: output {name!r} is off by {_max(off):.3g}, {max_ratio:.3g} times the rounding of "
                f"fp32 (allowed: {tolerance.max:g}; root mean square {rms_ratio:.3g}, allowed: {tolerance.rms:g})"
            )
    return reason, worst


def _by_bound(
    name: str, cases: Sequence[Case], answers: Sequence[Outputs], tolerance: Tolerance
) -> tuple[str, Deviation]:
    worst, reason = Deviation(name, math.nan, math.nan, 0.0, 0.0), ""
    expected = [case.expected[name].astype(np.float64) for case in cases]
    for case, answer, want, scale in zip(cases, answers, expected, _scales(cases, expected), strict=True):
        off = np.abs(answer[name].astype(np.float64) - want)
        worst = _worse(worst, Deviation(name, math.nan, math.nan, _max(off), _max(off) / scale))
        if isinstance(tolerance, Absolute):
            bound, words = tolerance.atol + tolerance.rtol * np.abs(want), f"{tolerance.atol:g} + {tolerance.rtol:g}|y|"
        else:
            allowed = UNREFERENCED_SCALED[str(answer[name].dtype)] * scale
            bound, words = np.full_like(want, allowed), f"{allowed:.3g}"
        outside = int(np.count_nonzero(~(off <= bound)))
        if outside and not reason:
            reason = (
                f"case {case.name!r}: output {name!r} is off by {_max(off):.3g}, allowed: {words}; "
                f"{outside} of {off.size} values are outside"
            )
    return reason, worst


@dataclass(frozen=True)
class Quality:
    """How good an INT8 format is beside its fp32 model, over the evaluation samples. Values are NaN where they do
    not apply. sqnr_db: 10 log10(sum y^2 / sum (y - q)^2), the lowest of all floating outputs. agreement: part of
    samples with the same largest score, the lowest of all score outputs. accuracy: part of samples whose label has
    the largest score (first score output). plain_sqnr_db: the lowest of floating outputs that are no scores.
    broken: NaN or infinite values where the fp32 model has none."""

    sqnr_db: float
    agreement: float
    accuracy: float
    base_accuracy: float
    plain_sqnr_db: float = math.nan
    broken: int = 0


def quality(base: Outputs, candidate: Outputs, *, scores: Sequence[str], labels: NDArray[np.int64] | None) -> Quality:
    """base, candidate: outputs over all evaluation samples, equal names and shapes (judge's form was checked)."""
    floats = [name for name in base if np.issubdtype(base[name].dtype, np.inexact)]
    same = [float(np.mean(_top(base[name]) == _top(candidate[name]))) for name in scores]
    accuracy = base_accuracy = math.nan
    if labels is not None and scores:
        accuracy = float(np.mean(_top(candidate[scores[0]]) == labels))
        base_accuracy = float(np.mean(_top(base[scores[0]]) == labels))
    noise = {name: sqnr_db(base[name], candidate[name]) for name in floats}
    return Quality(
        sqnr_db=min(noise.values(), default=math.nan),
        plain_sqnr_db=min((found for name, found in noise.items() if name not in scores), default=math.nan),
        agreement=min(same, default=math.nan),
        accuracy=accuracy,
        base_accuracy=base_accuracy,
        broken=sum(int(np.sum(np.isfinite(base[name]) & ~np.isfinite(candidate[name]))) for name in floats),
    )


def sqnr_db(base: Array, candidate: Array) -> float:
    """Signal to quantisation noise in dB; infinite where both are equal, minus infinite where there is no signal."""
    truth = base.astype(np.float64)
    noise = float(np.sum((truth - candidate.astype(np.float64)) ** 2))
    signal = float(np.sum(truth**2))
    if noise == 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal > 0 and math.isfinite(noise) else -math.inf


def has_signal(array: Array) -> bool:
    """A floating output that is not all zero: only there is a signal-to-noise ratio."""
    return np.issubdtype(array.dtype, np.inexact) and bool(np.any(array))


def _top(scores: Array) -> NDArray[np.int64]:
    return np.asarray(np.argmax(scores, axis=-1), dtype=np.int64)


def _scales(cases: Sequence[Case], truths: Sequence[NDArray[np.float64]]) -> list[float]:
    """The size of each case's values. What is quiet is measured by the real cases: a probe of large values may answer
    with any size, and must not make the others look like nothing."""
    largest = [_max(np.abs(truth)) for truth in truths]
    real = max((scale for case, scale in zip(cases, largest, strict=True) if case.real), default=0.0)
    floor = max(QUIET_SCALE * (real or max(largest)), 1e-30)
    return [max(scale, floor) for scale in largest]


def _max(values: NDArray[np.float64]) -> float:
    return float(values.max()) if values.size else 0.0


def _rms(values: NDArray[np.float64]) -> float:
    return float(np.sqrt(np.mean(values**2))) if values.size else 0.0


def _worse(one: Deviation, other: Deviation) -> Deviation:
    return Deviation(
        one.output,
        max(one.max_ratio, other.max_ratio),
        max(one.rms_ratio, other.rms_ratio),
        max(one.max_abs, other.max_abs),
        max(one.scaled, other.scaled),
    )


def _names(outputs: Outputs) -> str:
    return ", ".join(repr(name) for name in outputs) or "none"


INT8_FLOOR_DB = 10.0
"""Below this an output is noise for a third and more, whatever accuracy says."""


@dataclass(frozen=True)
class Int8Gate:
    """How far INT8 may fall: scores by accuracy where samples have labels, else by agreement; outputs that are no
    scores by signal-to-noise ratio. No output may fall below INT8_FLOOR_DB."""

    accuracy_drop: float
    agreement: float
    sqnr_db: float


def judge_int8(cases: Sequence[Case], answers: Sequence[Outputs], quality: Quality, gate: Int8Gate) -> Judgement:
    """Form as for every format; then how good it is, each output by the sharpest measure that the source allows."""
    if refusal := _forms(cases, answers):
        return Judgement(refusal)
    if quality.broken:
        return Judgement(f"{quality.broken} values over the evaluation samples are NaN or infinite")
    if math.isnan(quality.sqnr_db) and math.isnan(quality.agreement):
        return Judgement("no floating output and no scores: there is nothing to measure INT8 by")
    if (same := _equal_part(cases, answers)) < gate.agreement:
        return Judgement(f"{same:.2%} of integer and boolean values agree, needed: {gate.agreement:.2%}")
    drop = quality.base_accuracy - quality.accuracy
    if drop > gate.accuracy_drop + 1e-12:
        return Judgement(f"accuracy falls by {drop:.2%}, allowed: {gate.accuracy_drop:.2%}")
    if math.isnan(drop) and quality.agreement < gate.agreement:
        return Judgement(f"{quality.agreement:.2%} of answers agree, needed: {gate.agreement:.2%}")
    if quality.plain_sqnr_db < gate.sqnr_db:
        found = f"{quality.plain_sqnr_db:.1f} dB, needed: {gate.sqnr_db:.1f}"
        return Judgement(f"signal-to-noise ratio is {found}")
    if quality.sqnr_db < INT8_FLOOR_DB:
        return Judgement(
            f"signal-to-noise ratio is {quality.sqnr_db:.1f} dB, needed: {INT8_FLOOR_DB:.1f} of any output"
        )
    return Judgement("")


def _equal_part(cases: Sequence[Case], answers: Sequence[Outputs]) -> float:
    """Of all integer and boolean values, the part that is equal; 1 where there are none."""
    same = total = 0
    for case, answer in zip(cases, answers, strict=True):
        for name, array in case.expected.items():
            if not np.issubdtype(array.dtype, np.inexact):
                same, total = same + int(np.sum(array == answer[name])), total + array.size
    return same / total if total else 1.0


def judge_sqnr(cases: Sequence[Case], answers: Sequence[Outputs], floor_db: float) -> Judgement:
    """Form as for every format; then the signal-to-noise ratio of every floating output of every case."""
    if refusal := _forms(cases, answers):
        return Judgement(refusal)
    for case, answer in zip(cases, answers, strict=True):
        for name, array in case.expected.items():
            if has_signal(array) and (found := sqnr_db(array, answer[name])) < floor_db:
                reason = f"output {name!r} has a signal-to-noise ratio of {found:.1f} dB, needed: {floor_db:.1f}"
                return Judgement(f"case {case.name!r}: {reason}")
    return Judgement("")
