"""The judge: does a format compute what the trained model computes? Pure: it touches no file and runs no model.

Checks come in a fixed order, each with its own words: names, dtype, shape, finiteness, distance. An fp32 format is
held to the rounding that fp32 itself shows against a float64 run of the same model, so that nobody has to guess a
tolerance. docs/parity.md has the rule, where its numbers were measured and why `allclose` is not used.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from packhouse.formats.arrays import Array, Outputs
from packhouse.parity.int8_quality import Quality, has_signal, sqnr_db
from packhouse.parity.rounding import TORN_SCALED, Rounding, Yardstick, error, largest, rounding

UNREFERENCED_SCALED = {"float16": 1e-2, "float32": 1e-5, "float64": 2e-14}
"""Largest error, as a part of the output's largest value, where no float64 run exists. About 84 units in the last
place of fp32 and of float64; ten of float16, whose sums are kept in fp32."""


@dataclass(frozen=True)
class Case:
    """One set of inputs and what the trained model answered.

    inputs: name -> array. expected: output name -> array, as the model computes it. exact: the same in float64, for
    floating outputs; None where there is no such run. real: made of the source's own samples. yardsticks: of floating
    outputs; None: not taken yet, see `measured`.
    """

    name: str
    inputs: Mapping[str, Array]
    expected: Outputs
    exact: Outputs | None
    real: bool
    yardsticks: Mapping[str, Yardstick] | None = None

    @property
    def floating(self) -> frozenset[str]:
        """Names of the outputs that have a distance; the others are equal or not."""
        return frozenset(name for name, array in self.expected.items() if _floating(array))


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
    has a value in some case. Law: where cases that have yardsticks pass, any of them pass without the others, as long
    as each output still has a value. Raises ValueError: no cases, or another number of answers than of cases (the
    caller's mistake).
    """
    if refusal := _forms(cases, answers):
        return Judgement(refusal)
    if any(case.yardsticks is None for case in cases):
        cases = measured(cases)
    return _distances(cases, answers, tolerance)


def judge_one(case: Case, answer: Outputs, tolerance: Tolerance) -> Judgement:
    """One case that has yardsticks, beside others that prove something: its outputs may be empty."""
    if refusal := form(case, answer):
        return Judgement(refusal)
    return _distances([case], [answer], tolerance)


def form(case: Case, answer: Outputs) -> str:
    """What the form of one answer has against it: names and their order, dtype, shape, finiteness. Empty: nothing."""
    refusal = _form(case, answer)
    return f"case {case.name!r}: {refusal}" if refusal else ""


def _distances(cases: Sequence[Case], answers: Sequence[Outputs], tolerance: Tolerance) -> Judgement:
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
            was = _names(cases[0].expected)
            return f"case {case.name!r}: the model has {_names(case.expected)}, before {was} (PH-0618)"
        if refusal := form(case, answer):
            return refusal
    if not cases[0].expected:
        return "the model has no outputs: there is nothing to compare (PH-0619)"
    for name in cases[0].expected:
        if not any(case.expected[name].size for case in cases):
            return f"output {name!r} is empty in every case: there is nothing to compare (PH-0620)"
    return ""


def _form(case: Case, answer: Outputs) -> str:
    if list(answer) != list(case.expected):
        return f"outputs are {_names(answer)}, the model has {_names(case.expected)} (PH-0621)"
    for name, want in case.expected.items():
        got = answer[name]
        if got.dtype != want.dtype:
            return f"output {name!r} is {got.dtype}, the model gives {want.dtype} (PH-0622)"
        if got.shape != want.shape:
            return f"output {name!r} has shape {got.shape}, the model gives {want.shape} (PH-0623)"
        if _floating(want):
            truth = (case.exact or {}).get(name, want)
            for array, whose in ((got, ""), (want, " in the model's own answer"), (truth, " in its float64 run")):
                if broken := int(np.count_nonzero(~np.isfinite(array))):
                    part = f"{broken} of {array.size} values"
                    return f"output {name!r} has {part} that are NaN or infinite{whose} (PH-0624)"
    return ""


def _distance(
    name: str, cases: Sequence[Case], answers: Sequence[Outputs], tolerance: Tolerance
) -> tuple[str, Deviation]:
    """The first refusal, and the worst of all cases."""
    if not _floating(cases[0].expected[name]):
        return _equal(name, cases, answers)
    reason, most = "", Deviation(name, math.nan, math.nan, 0.0, 0.0)
    for case, answer in zip(cases, answers, strict=True):
        stick = (case.yardsticks or {})[name]
        refusal, found = _off(name, case, answer[name], stick, tolerance)
        reason, most = reason or refusal, _worse(most, found)
    return reason, most


def _off(name: str, case: Case, got: Array, stick: Yardstick, tolerance: Tolerance) -> tuple[str, Deviation]:
    if isinstance(tolerance, Absolute):
        bound = tolerance.atol + tolerance.rtol * np.abs(case.expected[name].astype(np.float64))
        return _by_bound(name, case, got, bound, f"{tolerance.atol:g} + {tolerance.rtol:g}|y|", stick.scale)
    allowed = UNREFERENCED_SCALED[str(got.dtype)] * stick.scale
    bound = np.full(got.shape, allowed)
    if stick.rounding is None:
        return _by_bound(name, case, got, bound, f"{allowed:.3g}", stick.scale)
    refusal, found = _by_rounding(name, case, got, stick, tolerance)
    if stick.torn and not refusal:
        words = f"{allowed:.3g} from the fp32 answer, since float64 goes another way"
        refusal, _ = _by_bound(name, case, got, bound, words, stick.scale)
    return refusal, found


def _equal(name: str, cases: Sequence[Case], answers: Sequence[Outputs]) -> tuple[str, Deviation]:
    """Integers and booleans are compared exactly."""
    for case, answer in zip(cases, answers, strict=True):
        differ = int(np.count_nonzero(case.expected[name] != answer[name]))
        if differ:
            size = case.expected[name].size
            reason = f"case {case.name!r}: output {name!r} differs in {differ} of {size} values (PH-0625)"
            return reason, Deviation(name, math.nan, math.nan, math.inf, math.inf)
    return "", Deviation(name, math.nan, math.nan, 0.0, 0.0)


def _by_rounding(name: str, case: Case, got: Array, stick: Yardstick, tolerance: Ratio) -> tuple[str, Deviation]:
    """Against the float64 run; against the fp32 answer where the float64 run did not come as far as this case."""
    assert stick.rounding is not None
    off = error(got, (case.exact or case.expected)[name])
    max_ratio, rms_ratio = off.max / stick.rounding.max, off.rms / stick.rounding.rms
    found = Deviation(name, max_ratio, rms_ratio, off.max, off.max / stick.scale)
    if max_ratio <= tolerance.max and rms_ratio <= tolerance.rms:
        return "", found
    reason = (
        f"case {case.name!r}: output {name!r} is off by {off.max:.3g}, {max_ratio:.3g} times the rounding of "
        f"fp32 (allowed: {tolerance.max:g}; root mean square {rms_ratio:.3g}, allowed: {tolerance.rms:g}) (PH-0626)"
    )
    return reason, found


def _by_bound(
    name: str, case: Case, got: Array, bound: NDArray[np.float64], words: str, scale: float
) -> tuple[str, Deviation]:
    """Against the fp32 answer, each element by itself."""
    off = np.abs(got.astype(np.float64) - case.expected[name].astype(np.float64))
    most = largest(off)
    found = Deviation(name, math.nan, math.nan, most, most / scale)
    outside = int(np.count_nonzero(~(off <= bound)))
    if not outside:
        return "", found
    reason = f"case {case.name!r}: output {name!r} is off by {most:.3g}, allowed: {words}; "
    return f"{reason}{outside} of {off.size} values are outside (PH-0627)", found


def measured(cases: Sequence[Case], *, torn: Mapping[str, float] = TORN_SCALED) -> tuple[Case, ...]:
    """The cases with their yardsticks, by how the model rounds over all of them."""
    found = roundings(cases, torn=torn)
    return tuple(with_yardsticks(case, found) for case in cases)


def with_yardsticks(case: Case, found: Mapping[str, Rounding]) -> Case:
    """found: by output, of all floating outputs. The case need not be one of those that it comes from."""
    exact = case.exact or {}
    sticks = {name: by.yardstick(case.expected[name], exact.get(name)) for name, by in found.items()}
    return replace(case, yardsticks=sticks)


def roundings(cases: Sequence[Case], *, torn: Mapping[str, float] = TORN_SCALED) -> dict[str, Rounding]:
    """How each floating output of the model rounds over the cases. All values must be finite."""
    referenced = [case.exact for case in cases if case.exact is not None]
    return {
        name: rounding(
            [case.expected[name] for case in cases],
            [exact[name] for exact in referenced] if len(referenced) == len(cases) else None,
            [case.real for case in cases],
            torn=torn[str(array.dtype)],
        )
        for name, array in cases[0].expected.items()
        if _floating(array)
    }


def _floating(array: Array) -> bool:
    return bool(np.issubdtype(array.dtype, np.inexact))


def worst(some: Sequence[Deviation], others: Sequence[Deviation]) -> tuple[Deviation, ...]:
    """Of every output, over both."""
    found = {deviation.output: deviation for deviation in some}
    for deviation in others:
        name = deviation.output
        found[name] = _worse(found[name], deviation) if name in found else deviation
    return tuple(found.values())


def _worse(one: Deviation, other: Deviation) -> Deviation:
    return Deviation(
        one.output,
        float(np.fmax(one.max_ratio, other.max_ratio)),
        float(np.fmax(one.rms_ratio, other.rms_ratio)),
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
        return Judgement(f"{quality.broken} values over the evaluation samples are NaN or infinite (PH-0628)")
    if math.isnan(quality.sqnr_db) and math.isnan(quality.agreement):
        return Judgement("no floating output and no scores: there is nothing to measure INT8 by (PH-0629)")
    if (same := _equal_part(cases, answers)) < gate.agreement:
        return Judgement(f"{same:.2%} of integer and boolean values agree, needed: {gate.agreement:.2%} (PH-0630)")
    drop = quality.base_accuracy - quality.accuracy
    if drop > gate.accuracy_drop + 1e-12:
        return Judgement(f"accuracy falls by {drop:.2%}, allowed: {gate.accuracy_drop:.2%} (PH-0631)")
    if math.isnan(drop) and quality.agreement < gate.agreement:
        return Judgement(f"{quality.agreement:.2%} of answers agree, needed: {gate.agreement:.2%} (PH-0632)")
    if quality.plain_sqnr_db < gate.sqnr_db:
        found = f"{quality.plain_sqnr_db:.1f} dB, needed: {gate.sqnr_db:.1f}"
        return Judgement(f"signal-to-noise ratio is {found} (PH-0633)")
    if quality.sqnr_db < INT8_FLOOR_DB:
        return Judgement(
            f"signal-to-noise ratio is {quality.sqnr_db:.1f} dB, needed: {INT8_FLOOR_DB:.1f} of any output (PH-0634)"
        )
    return Judgement("")


def _equal_part(cases: Sequence[Case], answers: Sequence[Outputs]) -> float:
    """Of all integer and boolean values, the part that is equal; 1 where there are none."""
    same = total = 0
    for case, answer in zip(cases, answers, strict=True):
        for name, array in case.expected.items():
            if not _floating(array):
                same, total = same + int(np.sum(array == answer[name])), total + array.size
    return same / total if total else 1.0


def judge_sqnr(cases: Sequence[Case], answers: Sequence[Outputs], floor_db: float) -> Judgement:
    """Form as for every format; then the signal-to-noise ratio of every floating output of every case."""
    if refusal := _forms(cases, answers):
        return Judgement(refusal)
    for case, answer in zip(cases, answers, strict=True):
        for name, array in case.expected.items():
            if has_signal(array) and (found := sqnr_db(array, answer[name])) < floor_db:
                reason = f"has a signal-to-noise ratio of {found:.1f} dB, needed: {floor_db:.1f} (PH-0635)"
                return Judgement(f"case {case.name!r}: output {name!r} {reason}")
    return Judgement("")
