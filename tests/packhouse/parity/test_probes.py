"""What formats are tried on: both ends and an odd size of every axis, and never what the spec does not permit."""

from __future__ import annotations

import time

import numpy as np
import pytest

from packhouse.errors import SamplesInvalid
from packhouse.parity.probes import MAX_CASE_ELEMENTS, Probe, check_samples, probes
from packhouse.spec.model import Labels, Spec

F32 = np.float32


def spec(
    inputs: list[dict],
    axes: dict | None = None,
    *,
    labels: str | None = None,
    outputs: list[dict] | None = None,
    steps: list[dict] | None = None,
) -> Spec:
    file = {"sha256": "a" * 64, "size": 1}
    return Spec.model_validate(
        {
            "schema": 2,
            "model": {"name": "m"},
            "architecture": {"name": "a"},
            "axes": axes or {},
            "inputs": inputs,
            "outputs": outputs or [{"name": "y", "shape": ["batch", 3], "kind": "scores"}],
            "weights": {"file": "w", **file},
            "preprocessing": steps or [],
            "samples": {"file": "samples.safetensors", "labels": labels, **file},
        }
    )


def split(**arrays: np.ndarray) -> dict[str, np.ndarray]:
    return {f"{part}.{name}": array for part in ("calibration", "evaluation") for name, array in arrays.items()}


def made(of: Spec, **arrays: np.ndarray) -> dict[str, Probe]:
    samples = split(**arrays)
    check_samples(of, samples)
    found = list(probes(of, samples))
    assert len({probe.name for probe in found}) == len(found)
    return {probe.name: probe for probe in found}


def values(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(F32)


FLAT = spec([{"name": "x", "shape": ["batch", 4]}], {"batch": {"max": 64}})
TEXT = spec(
    [
        {"name": "ids", "dtype": "int64", "shape": ["batch", "time"], "range": [0, 9]},
        {"name": "x", "shape": ["batch", "time", 2]},
    ],
    {"batch": {"max": 64}, "time": {"min": 2, "max": 16}},
)


def test_batches_of_one_two_three_eight_and_the_largest_are_tried_in_this_order():
    found = made(FLAT, x=values(5, 4))
    assert [name for name in found if name.startswith("batch")] == [
        "batch 1",
        "batch 2",
        "batch 3",
        "batch 8",
        "batch 64",
    ]
    assert found["batch 64"].inputs["x"].shape == (64, 4)


@pytest.mark.parametrize(
    "limits, sizes",
    [
        ({"max": 1}, [1]),
        ({"max": 2}, [1, 2]),
        ({"max": 5}, [1, 2, 3, 5]),
        ({"min": 2, "max": 5}, [2, 3, 5]),
        ({"min": 4, "max": 64}, [4, 5, 8, 64]),
        ({"min": 16, "max": 64}, [16, 17, 64]),
        ({"max": 2**31 - 1}, [1, 2, 3, 8, MAX_CASE_ELEMENTS // 4]),
    ],
)
def test_batches_stay_between_the_axis_ends(limits, sizes):
    of = spec([{"name": "x", "shape": ["batch", 4]}], {"batch": limits})
    found = made(of, x=values(2, 4))
    assert [len(probe.inputs["x"]) for probe in found.values() if probe.name.startswith("batch")] == sizes
    assert {len(probe.inputs["x"]) for probe in found.values()} <= set(sizes)


def test_the_largest_batch_is_bounded_by_its_elements():
    row = MAX_CASE_ELEMENTS // 4
    of = spec([{"name": "x", "dtype": "int8", "shape": ["batch", row]}], {"batch": {"max": 64}})
    found = made(of, x=np.zeros((1, row), np.int8))
    assert [probe.inputs["x"].shape[0] for probe in found.values()] == [1, 2, 3, 4]


def test_every_other_axis_is_tried_at_its_ends_and_an_odd_size_in_all_inputs_at_once():
    found = made(TEXT, ids=np.zeros((3, 5), np.int64), x=values(3, 5, 2))
    assert [name for name in found if name.startswith("time")] == ["time 2", "time 7", "time 16"]
    for size in (2, 7, 16):
        inputs = found[f"time {size}"].inputs
        assert inputs["ids"].shape == (2, size)
        assert inputs["x"].shape == (2, size, 2)


@pytest.mark.parametrize("limits, sizes", [({"max": 1}, [1]), ({"max": 2}, [1, 2]), ({"min": 8, "max": 10}, [8, 10])])
def test_a_narrow_axis_is_tried_at_what_sizes_it_has(limits, sizes):
    of = spec([{"name": "x", "shape": ["batch", "n"]}], {"batch": {"max": 2}, "n": limits})
    found = made(of, x=values(2, sizes[0]))
    assert [probe.inputs["x"].shape[1] for probe in found.values() if probe.name.startswith("n ")] == sizes


def test_an_axis_of_any_length_is_tried_up_to_a_bounded_size_and_at_once():
    of = spec([{"name": "x", "shape": ["batch", "n", 2]}], {"batch": {"max": 2}, "n": {"max": 2**31 - 1}})
    started = time.process_time()
    found = made(of, x=values(2, 3, 2))
    assert time.process_time() - started < 5
    largest = max(probe.inputs["x"].size for probe in found.values())
    assert MAX_CASE_ELEMENTS * 0.9 < largest <= MAX_CASE_ELEMENTS


def test_a_square_axis_is_bounded_too_and_stays_square():
    of = spec([{"name": "x", "shape": ["n", "n"]}], {"n": {"max": 10**6}}, outputs=[{"name": "y", "shape": [3]}])
    found = made(of, x=values(2, 3, 3))
    assert all(probe.inputs["x"].shape[0] == probe.inputs["x"].shape[1] for probe in found.values())
    assert max(probe.inputs["x"].size for probe in found.values()) <= MAX_CASE_ELEMENTS


def test_a_model_without_a_batch_gets_its_samples_one_by_one():
    of = spec([{"name": "x", "shape": [4]}], outputs=[{"name": "y", "shape": [3]}])
    x = values(6, 4)
    found = made(of, x=x)
    assert list(found) == ["sample 0", "sample 1", "sample 2", "sample 3", "zeros", "large", "negated"]
    np.testing.assert_array_equal(found["sample 2"].inputs["x"], x[2])


def test_zeros_large_and_negated_values_are_tried_and_are_not_real():
    found = made(FLAT, x=values(5, 4))
    base = values(5, 4)[:2]
    for name, factor in (("zeros", 0), ("large", 100), ("negated", -1)):
        np.testing.assert_array_equal(found[name].inputs["x"], base * F32(factor))
        assert not found[name].real
    assert all(probe.real for name, probe in found.items() if name.startswith("batch"))


def test_integers_are_never_scaled_and_ranges_are_kept():
    of = spec(
        [
            {"name": "ids", "dtype": "int64", "shape": ["batch", 3], "range": [0, 9]},
            {"name": "on", "dtype": "bool", "shape": ["batch"]},
            {"name": "x", "shape": ["batch", 2], "range": [0.1, 0.7]},
        ],
        {"batch": {"max": 4}},
    )
    ids, on, x = np.arange(6).reshape(2, 3), np.array([True, False]), np.array([[0.1, 0.2], [0.3, 0.7]], F32)
    for name, probe in made(of, ids=ids, on=on, x=x).items():
        assert [array.dtype for array in probe.inputs.values()] == [np.int64, np.bool_, F32]
        assert probe.inputs["x"].min() >= F32(0.1)
        assert probe.inputs["x"].max() <= F32(0.7)
        if not probe.real:
            np.testing.assert_array_equal(probe.inputs["ids"], ids, err_msg=name)
            np.testing.assert_array_equal(probe.inputs["on"], on, err_msg=name)


def test_only_integers_have_no_probes_of_other_values():
    of = spec([{"name": "ids", "dtype": "int64", "shape": ["batch", 3], "range": [0, 9]}], {"batch": {"max": 4}})
    assert all(probe.real for probe in made(of, ids=np.zeros((2, 3), np.int64)).values())


def test_large_values_of_a_narrow_dtype_stay_finite():
    of = spec([{"name": "x", "dtype": "float16", "shape": ["batch", 2]}], {"batch": {"max": 4}})
    found = made(of, x=np.full((2, 2), 60000, np.float16))
    assert np.isfinite(found["large"].inputs["x"]).all()


def test_probes_are_the_same_each_time():
    one, other = (made(TEXT, ids=np.zeros((3, 5), np.int64), x=values(3, 5, 2)) for _ in range(2))
    assert list(one) == list(other)
    for name, probe in one.items():
        for key, array in probe.inputs.items():
            assert array.tobytes() == other[name].inputs[key].tobytes()


GOOD = split(ids=np.zeros((3, 5), np.int64), x=values(3, 5, 2))
LABELLED = TEXT.model_copy(update={"samples": TEXT.samples.model_copy(update={"labels": Labels.CLASS})})
NAN = np.where(np.arange(30).reshape(3, 5, 2) == 7, np.nan, values(3, 5, 2)).astype(F32)

BAD = {
    "missing": (TEXT, {"evaluation.x": None}, "evaluation.x: tensor is missing"),
    "unknown": (TEXT, {"test.x": values(1)}, "test.x: tensor is not declared"),
    "labels nobody declared": (TEXT, {"label": np.zeros(3, np.int64)}, "label: tensor is not declared"),
    "labels missing": (LABELLED, {}, "label: tensor is missing"),
    "dtype": (TEXT, {"calibration.x": values(3, 5, 2).astype(float)}, "calibration.x: dtype differs from the spec"),
    "rank": (TEXT, {"calibration.x": values(3, 5)}, "calibration.x: rank differs from the spec"),
    "fixed size": (TEXT, {"evaluation.x": values(3, 5, 3)}, "evaluation.x: shape differs from the spec"),
    "axis too long": (TEXT, {"evaluation.x": values(3, 17, 2)}, "want time from 2 to 16"),
    "axis too short": (TEXT, {"evaluation.x": values(3, 1, 2)}, "want time from 2 to 16"),
    "axis of two sizes": (TEXT, {"evaluation.x": values(3, 6, 2)}, "evaluation.x: axis 'time' has two sizes; got 6"),
    "another number": (TEXT, {"evaluation.x": values(2, 5, 2)}, "evaluation: inputs differ in number of samples"),
    "none": (TEXT, {"evaluation.x": values(0, 5, 2)}, "evaluation.x: no samples"),
    "NaN": (TEXT, {"evaluation.x": NAN}, "evaluation.x: NaN or infinity among the samples"),
    "infinity": (TEXT, {"calibration.x": np.full((3, 5, 2), np.inf, F32)}, "calibration.x: NaN or infinity among"),
    "out of range": (
        TEXT,
        {"evaluation.ids": np.full((3, 5), 10)},
        "evaluation.ids: values outside the declared range",
    ),
    "below range": (TEXT, {"evaluation.ids": np.full((3, 5), -1)}, "evaluation.ids: values outside the declared range"),
}


@pytest.mark.parametrize("of, change, words", BAD.values(), ids=BAD)
def test_bad_samples_are_refused_by_name(of, change, words):
    samples = {name: array for name, array in (GOOD | change).items() if array is not None}
    with pytest.raises(SamplesInvalid) as caught:
        check_samples(of, samples)
    assert str(caught.value).startswith("samples.safetensors: ")
    assert words in str(caught.value)


LABELS = {
    "float": (np.zeros(3, F32), "label: wrong form; got float32 (3,), want int64 (3,)"),
    "another number": (np.zeros(4, np.int64), "label: wrong form"),
    "one-hot": (np.zeros((3, 3), np.int64), "label: wrong form"),
    "below nothing": (np.array([0, -1, 2]), "label: no such class; got -1 to 2, want 0 to 2"),
    "too many classes": (np.array([0, 3, 2]), "label: no such class; got 0 to 3, want 0 to 2"),
}


@pytest.mark.parametrize("labels, words", LABELS.values(), ids=LABELS)
def test_bad_labels_are_refused(labels, words):
    of = FLAT.model_copy(update={"samples": LABELLED.samples})
    check_samples(of, split(x=values(3, 4)) | {"label": np.array([0, 1, 2])})
    with pytest.raises(SamplesInvalid) as caught:
        check_samples(of, split(x=values(3, 4)) | {"label": labels})
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "output, words",
    [
        ({"name": "y", "shape": ["batch", 3]}, "labels need an output of kind `scores`"),
        ({"name": "y", "shape": ["batch", "n", 3], "kind": "scores"}, "needs one row of scores a sample"),
    ],
)
def test_labels_need_one_row_of_scores_a_sample(output, words):
    of = spec([{"name": "x", "shape": ["batch", 4]}], {"batch": {"max": 64}}, labels="class", outputs=[output])
    with pytest.raises(SamplesInvalid, match=words):
        check_samples(of, split(x=values(3, 4)) | {"label": np.array([0, 1, 2])})


# Codes that preprocessing looks up


def coded(step: dict, *, most: int = 64, **given: object) -> Spec:
    code = {"name": "code", "dtype": "int64", "shape": ["batch", 1], **given}
    axes = {"batch": {"max": most}}
    return spec([code, {"name": "x", "shape": ["batch", 2]}], axes, steps=[{"input": "code", **step}])


def of(*codes: int) -> dict[str, np.ndarray]:
    return {"code": np.array(codes)[:, None], "x": values(len(codes), 2)}


WORDS = {"kind": "one-hot", "categories": ["a", "b", "c"], "unknown": "zeros"}
NUMBERS = {"kind": "vocabulary", "values": [4, 9, 5], "unknown": 0}


@pytest.mark.parametrize(
    "step, given, tried",
    [
        (WORDS, {}, [-1, 0, 1, 2]),
        (WORDS | {"unknown": "never"}, {}, [0, 1, 2]),
        (NUMBERS, {}, [-1, 4, 9, 5]),
        (NUMBERS, {"range": [4, 12]}, [10, 4, 9, 5]),
        (NUMBERS, {"range": [4, 9]}, [4, 9, 5]),
        (NUMBERS, {"range": [4, 8]}, [4, 5]),
        (NUMBERS, {"dtype": "uint8"}, [10, 4, 9, 5]),
    ],
)
def test_every_code_is_tried_and_an_unknown_one_where_it_has_a_meaning(step, given, tried):
    found = made(coded(step, **given), **{**of(1, 1), "code": np.full((2, 1), tried[-1], given.get("dtype", "int64"))})
    probe = found["every code 0"]
    assert probe.inputs["code"].ravel().tolist() == tried
    assert probe.inputs["x"].shape == (len(tried), 2)
    assert probe.real
    assert "every code 1" not in found


def test_more_codes_than_the_largest_batch_has_rows_are_tried_in_parts():
    found = made(coded({"kind": "one-hot", "categories": list(range(10)), "unknown": "never"}, most=4), **of(1, 1))
    parts = [found[f"every code {number}"].inputs["code"].ravel().tolist() for number in range(3)]
    assert parts == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 0, 1]]


def test_a_model_without_lookups_has_no_such_probe():
    assert not [name for name in made(FLAT, x=values(5, 4)) if "code" in name]


@pytest.mark.parametrize(
    "step, codes, words",
    [
        (WORDS, (0, 3), "no such code; got 3, want a code of a text that is listed"),
        (WORDS, (0, -2), "no such code; got -2"),
        (WORDS | {"unknown": "never"}, (0, -1), "no such code; got -1"),
        (
            {"kind": "one-hot", "categories": [4, 9], "unknown": "never"},
            (4, 5),
            "got 5, want a category that is listed",
        ),
    ],
)
def test_samples_have_the_codes_that_the_spec_lets_them_have(step, codes, words):
    with pytest.raises(SamplesInvalid, match=words):
        check_samples(coded(step), split(**of(*codes)))


def test_samples_may_have_unknown_codes_where_the_spec_says_what_becomes_of_them():
    check_samples(coded(WORDS), split(**of(0, -1)))
    check_samples(coded(NUMBERS), split(**of(4, 1000)))


MASKED = [{"name": "x", "shape": ["batch", "time"], "nan": True, "inf": False, "range": [-1, 1]}]
LENGTHS = {"name": "n", "shape": ["batch"], "dtype": "int64", "lengths_of": "time"}
TIME = {"batch": {"max": 64}, "time": {"sizes": [2, 4]}}
REGRESSION = [{"name": "y", "shape": ["batch"]}]


def with_(spec: Spec, **samples: object) -> Spec:
    return spec.model_copy(update={"samples": spec.samples.model_copy(update=samples)})


SEQUENCES = {"x": np.zeros((3, 4), F32)}


@pytest.mark.parametrize(
    "x, words",
    [
        ([[np.nan, 1, 0, 0]], ""),
        ([[np.inf, 1, 0, 0]], "NaN or infinity among the samples"),
        ([[np.nan, 1.5, 0, 0]], "values outside the declared range"),
        ([[0, 0]], ""),
        ([[0, 0, 0]], "shape differs from the spec; got (1, 3), want time one of 2, 4"),
    ],
    ids=["NaN", "infinity", "outside beside NaN", "another size", "a size between"],
)
def test_samples_are_held_to_the_values_and_sizes_that_are_legal(x, words):
    of, samples = spec(MASKED, TIME, outputs=REGRESSION), split(x=np.array(x, F32))
    if not words:
        check_samples(of, samples)
        return
    with pytest.raises(SamplesInvalid) as caught:
        check_samples(of, samples)
    assert words in str(caught.value)


@pytest.mark.parametrize("lengths, legal", [([0, 2, 4], True), ([0, 2, 5], False), ([-1, 2, 4], False)])
def test_lengths_among_the_samples_are_lengths_of_their_axis(lengths, legal):
    of = spec([*MASKED, LENGTHS], TIME, outputs=REGRESSION)
    samples = split(**SEQUENCES, n=np.array(lengths))
    if legal:
        check_samples(of, samples)
    else:
        with pytest.raises(SamplesInvalid, match=r"calibration\.n: no such length"):
            check_samples(of, samples)


GROUPED = {
    "groups": ({"slices": ("old", "new")}, {"slice": np.array([0, 1, 1])}, ""),
    "no such group": ({"slices": ("old", "new")}, {"slice": np.array([0, 1, 2])}, "slice: no such slice; got 0 to 2"),
    "groups in floats": ({"slices": ("old",)}, {"slice": np.zeros(3)}, "slice: wrong form; got float64 (3,)"),
    "too few groups": (
        {"slices": ("old",)},
        {"slice": np.zeros(2, int)},
        "slice: wrong form; got int64 (2,), want int",
    ),
    "no groups": ({"slices": ("old",)}, {}, "slice: tensor is missing"),
    "groups of nobody": ({}, {"slice": np.zeros(3, int)}, "slice: tensor is not declared"),
    "numbers": ({"labels": Labels.VALUE}, {"label": np.array([0.5, 1, -2])}, ""),
    "numbers of float32": ({"labels": Labels.VALUE}, {"label": np.zeros(3, F32)}, ""),
    "whole numbers": ({"labels": Labels.VALUE}, {"label": np.zeros(3, int)}, "want float32 or float64 (3,)"),
    "no numbers": ({"labels": Labels.VALUE}, {"label": np.array([0, np.nan, 1])}, "label: NaN or infinity among the l"),
}


@pytest.mark.parametrize("declared, more, words", GROUPED.values(), ids=GROUPED)
def test_slices_and_labels_of_a_regression_have_one_number_a_sample(declared, more, words):
    of = with_(spec(MASKED, TIME, outputs=REGRESSION), **declared)
    if not words:
        check_samples(of, split(**SEQUENCES) | more)
        return
    with pytest.raises(SamplesInvalid) as caught:
        check_samples(of, split(**SEQUENCES) | more)
    assert words in str(caught.value)
