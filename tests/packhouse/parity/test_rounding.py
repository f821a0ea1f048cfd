"""The yardstick: fp32's own rounding is a measure, a step that float64 takes otherwise is none."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from packhouse.errors import ReleaseInvalid
from packhouse.formats.arrays import Outputs
from packhouse.parity.golden_file import golden, read_cases, write_cases
from packhouse.parity.judge import Case, Ratio, judge, judge_one, measured, roundings, with_yardsticks
from packhouse.parity.replay import golden_cases
from packhouse.parity.rounding import TORN_SCALED

F32 = np.float32
WHOLE = dict.fromkeys(TORN_SCALED, math.inf)
SIZES = (1, 2, 3, 5, 8)


def model(seed: int, *, flip: float = 0.0, own: float = 1e-7) -> list[Case]:
    """Cases of (batch, 4). flip: by so much float64 differs in one value of the first row."""
    random = np.random.default_rng(seed)
    truth = random.normal(size=(8, 4))
    y = (truth * (1 + own * random.normal(size=truth.shape))).astype(F32)
    truth[0, 0] += flip
    return [Case(f"batch {n}", {"x": y[:n]}, {"y": y[:n]}, {"y": truth[:n]}, real=True) for n in SIZES]


def permuted(case: Case) -> Outputs:
    return {"y": np.ascontiguousarray(case.expected["y"][:, [0, 2, 1, 3]])}


@pytest.mark.parametrize("flip", [0.0, 0.1, 1.0, 100.0])
def test_a_permuted_weight_is_refused_wherever_float64_goes(flip):
    cases = model(0, flip=flip)
    found = judge(cases, [permuted(case) for case in cases], Ratio())
    assert found.refusal.startswith("case 'batch 1': output 'y' is off by ")


def test_where_float64_goes_another_way_the_fp32_answer_counts_and_the_refusal_says_so():
    cases = model(0, flip=100.0)
    assert judge(cases, [case.expected for case in cases], Ratio()).refusal == ""
    slightly = [{"y": case.expected["y"] + F32(0.01)} for case in cases]
    refusal = judge(cases, slightly, Ratio()).refusal
    assert "from the fp32 answer, since float64 goes another way; 4 of 4 values are outside" in refusal
    assert judge(measured(cases, torn=WHOLE), slightly, Ratio()).refusal == ""


@given(
    seed=st.integers(0, 999),
    flip=st.sampled_from([0.0, 1e-4, 1e-3, 3e-3, 0.1, 3.0]),
    off=st.floats(1e-9, 1.0),
    where=st.integers(0, 31),
)
@settings(deadline=None)
def test_no_tolerance_is_wider_than_without_the_ceiling(seed, flip, off, where):
    cases = model(seed, flip=flip)
    answers = [{"y": case.expected["y"].copy()} for case in cases]
    for answer in answers:
        answer["y"].flat[where % answer["y"].size] += F32(off)
    if not judge(cases, answers, Ratio()).refusal:
        assert judge(measured(cases, torn=WHOLE), answers, Ratio()).refusal == ""


def test_a_torn_case_does_not_make_the_others_lax():
    """Most cases have the torn row; the one that has not is still measured by rounding."""
    cases = model(0, flip=1.0)
    sound = replace(model(1)[-1], name="sound")
    answers = [*(case.expected for case in cases), {"y": sound.expected["y"] + F32(1e-4)}]
    assert "case 'sound'" in judge([*cases, sound], answers, Ratio()).refusal


def test_rounding_in_a_quiet_case_is_no_tear():
    """A value that is what is left of large ones has the large ones' rounding: much beside itself, nothing beside
    them."""
    left = Case("left", {}, {"y": np.full((1, 4), 3e-6, F32)}, {"y": np.full((1, 4), 1e-6)}, real=True)
    cases = measured([*model(0, own=1e-6), left])
    assert not any(stick.torn for case in cases for stick in (case.yardsticks or {}).values())


def test_a_case_without_its_own_float64_run_is_measured_by_the_largest_rounding_of_the_others():
    cases = model(0)
    late = replace(model(1)[-1], name="late", exact=None)
    known = with_yardsticks(late, roundings(cases))
    assert judge_one(known, late.expected, Ratio()).refusal == ""
    assert judge_one(known, {"y": late.expected["y"] * F32(1 + 1e-7)}, Ratio()).refusal == ""
    assert "case 'late'" in judge_one(known, {"y": late.expected["y"] * F32(1 + 1e-5)}, Ratio()).refusal
    assert "case 'late'" in judge_one(known, permuted(late), Ratio()).refusal
    unknown = with_yardsticks(late, roundings([replace(case, exact=None) for case in cases]))
    assert judge_one(unknown, late.expected, Ratio()).refusal == ""
    assert "case 'late'" in judge_one(unknown, permuted(late), Ratio()).refusal


def sums(seed: int, length: int = 1200) -> tuple[list[Case], list[Outputs]]:
    """A model that sums many products, and a healthy format that sums them in another order."""
    random = np.random.default_rng(seed)
    w = (random.normal(size=length) / math.sqrt(length)).astype(F32)
    x = random.uniform(0, 1, size=(8, length)).astype(F32)
    y, truth = (x @ w)[:, None], (x.astype(np.float64) @ w.astype(np.float64))[:, None]
    parts = (x * w).reshape(8, -1, 40).sum(1, dtype=F32)
    other = np.add.reduce(parts, axis=1, dtype=F32)[:, None]
    cases = [Case(f"batch {n}", {"x": x[:n]}, {"y": y[:n]}, {"y": truth[:n]}, real=True) for n in SIZES]
    return cases, [{"y": other[:n]} for n in SIZES]


@pytest.mark.parametrize("limit", [1, 20 * 1200])
@pytest.mark.parametrize("exact", [True, False], ids=["float64", "no float64"])
def test_what_the_judge_passes_verify_passes_on_the_golden_cases(tmp_path: Path, limit, exact):
    """Whatever part of the cases a release has room for: they carry the yardstick that all of them gave."""
    passed = 0
    for seed in range(150):
        cases, answers = sums(seed)
        if not exact:
            cases = [replace(case, exact=None) for case in cases]
        cases = list(measured(cases))
        if judge(cases, answers, Ratio()).refusal:
            continue
        passed += 1
        kept = golden(cases, limit=limit)
        write_cases(tmp_path / "golden", kept)
        given = [answer for case, answer in zip(cases, answers, strict=True) if any(case is one for one in kept)]
        assert judge(golden_cases(tmp_path / "golden"), given, Ratio()).refusal == ""
    assert passed > 75


def test_a_release_from_before_yardsticks_were_written_is_judged_as_it_was_then(tmp_path):
    cases = model(0, flip=1.0)
    write_cases(tmp_path / "golden", cases)
    old = golden_cases(tmp_path / "golden")
    assert [case.yardsticks for case in old] == [case.yardsticks for case in measured(cases, torn=WHOLE)]
    assert judge(old, [permuted(case) for case in cases], Ratio(1e6, 1e6)).refusal == ""


def test_yardsticks_are_read_back_as_they_were(tmp_path):
    cases = measured([*model(0, flip=1.0), *model(1)])
    without = measured([replace(case, exact=None) for case in cases])
    for written in (cases, without):
        write_cases(tmp_path / "golden", written)
        assert [case.yardsticks for case in read_cases(tmp_path / "golden")] == [case.yardsticks for case in written]


@pytest.mark.parametrize("size", [0.0, -1.0])
def test_a_yardstick_without_a_size_is_refused(tmp_path, size):
    (case,) = measured(model(0)[:1])
    spoiled = {"y": replace((case.yardsticks or {})["y"], scale=size)}
    write_cases(tmp_path / "golden", [replace(case, yardsticks=spoiled)])
    with pytest.raises(ReleaseInvalid, match="is not a file of cases"):
        read_cases(tmp_path / "golden")


def test_an_output_without_its_yardstick_is_refused(tmp_path):
    (case,) = measured(model(0)[:1])
    write_cases(tmp_path / "golden", [replace(case, yardsticks={})])
    with pytest.raises(ReleaseInvalid, match="golden: batch 1: y: holds no yardstick of an output"):
        read_cases(tmp_path / "golden")
