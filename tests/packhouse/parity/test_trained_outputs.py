"""The trained model's answers: they fit the spec or are refused, and tell another model from another rounding."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from packhouse.errors import SamplesInvalid
from packhouse.parity.judge import Case, measured
from packhouse.parity.probes import check_samples
from packhouse.parity.trained_outputs import MAX_BYTES, MAX_ROWS, answer, cases, difference
from tests.packhouse.parity.test_probes import spec, split, values

FLAT = spec([{"name": "x", "shape": ["batch", 4]}], {"batch": {"max": 64}})
X = {"x": values(30, 4)}
WEIGHTS = values(4, 3)


def run(inputs):
    return {"y": inputs["x"] @ WEIGHTS}


def made(of=FLAT, samples=X, run=run):
    every = split(**samples)
    return every | answer(of, every, run)


def test_the_answers_to_the_first_rows_come_back_as_a_case_with_its_inputs():
    samples = made()
    check_samples(FLAT, samples)
    (case,) = cases(FLAT, samples)
    rows = len(case.inputs["x"])
    assert 1 < rows <= MAX_ROWS
    np.testing.assert_array_equal(case.inputs["x"], X["x"][:rows])
    np.testing.assert_array_equal(case.expected["y"], run(case.inputs)["y"])


def test_a_source_without_answers_has_no_cases():
    assert cases(FLAT, split(**X)) == ()


def test_answers_that_are_large_are_to_fewer_rows_and_one_row_is_always_answered():
    wide = MAX_BYTES // 4 // 3
    of = spec(
        [{"name": "x", "shape": ["batch", 4]}],
        {"batch": {"max": 64}},
        outputs=[{"name": "y", "shape": ["batch", wide]}],
    )
    for times, rows in ((1, 3), (5, 1)):
        given = answer(
            of, split(**X), lambda inputs, n=times: {"y": np.zeros((len(inputs["x"]), wide * n), np.float32)}
        )
        assert len(given["answer.y"]) == rows


def test_a_model_without_a_batch_answers_the_first_samples_one_by_one():
    of = spec([{"name": "x", "shape": [4]}], outputs=[{"name": "y", "shape": [3]}])
    found = cases(of, made(of))
    assert [case.name for case in found] == ["sample 0", "sample 1", "sample 2", "sample 3"]
    for number, case in enumerate(found):
        np.testing.assert_array_equal(case.expected["y"], run({"x": X["x"][number]})["y"])


def test_a_batch_whose_smallest_is_more_rows_than_there_are_samples_is_answered():
    of = spec([{"name": "x", "shape": ["batch", 4]}], {"batch": {"min": 40, "max": 64}})
    (case,) = cases(of, made(of))
    assert len(case.inputs["x"]) == 40


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda y: y[:4], "4] rows"),
        (lambda y: y[:, :2], r"want float32 \(batch, 3\)"),
        (lambda y: y.astype(np.float64), "float64"),
        (lambda y: y * np.float32(np.nan), "NaN"),
    ],
)
def test_answers_that_do_not_fit_the_spec_are_refused(change, words):
    samples = made()
    with pytest.raises(SamplesInvalid, match=words):
        cases(FLAT, samples | {"answer.y": change(samples["answer.y"])})


def test_an_answer_of_some_outputs_only_and_one_of_no_output_are_refused():
    two = spec(
        [{"name": "x", "shape": ["batch", 4]}],
        {"batch": {"max": 64}},
        outputs=[{"name": "y", "shape": ["batch", 3]}, {"name": "z", "shape": ["batch", 3]}],
    )
    with pytest.raises(SamplesInvalid, match=r"answer\.z"):
        cases(two, made())
    with pytest.raises(SamplesInvalid, match=r"answer\.q: tensor is not declared"):
        check_samples(FLAT, made() | {"answer.q": values(8, 3)})


def case(expected: np.ndarray) -> Case:
    return Case("batch 8", {}, {"y": expected}, None, real=True)


def test_another_machines_rounding_is_the_same_model():
    y = values(8, 3)
    assert difference(case(y), case(y * np.float32(1 + 1e-6))) == ""


def test_a_difference_is_told_by_output_and_row():
    y = values(8, 3)
    other = y.copy()
    other[5, 1] += 0.25
    assert difference(case(y), case(other)).startswith("output 'y' of row 5 is off by 0.25, where")


@pytest.mark.parametrize("other", [values(8, 2), values(8, 3).astype(np.float64), values(8, 3) * np.float32(np.inf)])
def test_another_form_is_another_model(other):
    assert difference(case(values(8, 3)), case(other))


def test_a_model_that_rounds_much_is_held_to_its_own_rounding_and_a_model_that_is_another_is_not():
    """own: what fp32 is off here, 3e-5 of the largest value; the trained model's was as large, the other way."""
    exact = values(8, 3).astype(np.float64)
    off = 3e-5 * np.abs(exact).max()
    built, trained = ((exact + sign * off).astype(np.float32) for sign in (1, -1))
    (here,) = measured([replace(case(built), exact={"y": exact})])
    assert difference(case(trained), case(built))
    assert difference(case(trained), here) == ""
    assert difference(case(trained + np.float32(0.1)), here)


def test_of_whole_numbers_one_in_a_hundred_may_fall_the_other_way():
    many = np.arange(1000).reshape(8, 125) % 7
    one, many_more = many.copy(), many.copy()
    one[3, 3] += 1
    many_more[3, :20] += 1
    assert difference(case(many), case(one)) == ""
    assert difference(case(many), case(many_more)) == "output 'y' differs in 20 of 1000 values, first in row 3"
