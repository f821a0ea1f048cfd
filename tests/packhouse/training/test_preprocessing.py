"""Preprocessing on the training side: the numbers are scikit-learn's own, and what has no counterpart is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, OneHotEncoder, OrdinalEncoder, RobustScaler, StandardScaler

from packhouse.errors import SamplesInvalid, SpecInvalid
from packhouse.training.preprocessing import (
    Concatenate,
    MinMax,
    OneHot,
    Standard,
    Vocabulary,
    apply,
    codes,
    from_sklearn,
)

DRAW = np.random.default_rng(0)
X = np.stack([DRAW.normal(2000, 3, 200), DRAW.exponential(1e-3, 200), np.full(200, 7.0)], axis=1)
OTHERS = np.stack([DRAW.normal(2000, 9, 50), DRAW.exponential(3e-3, 50), DRAW.normal(7, 1, 50)], axis=1)
PLANS = DRAW.choice(["month", "year", "two years"], (200, 1))


def applied(transformer: Any, x: np.ndarray) -> np.ndarray:
    return apply(from_sklearn(transformer, "x"), {"x": x.astype(np.float32)})["x"]


SCALERS = {
    "standard": StandardScaler(),
    "mean alone": StandardScaler(with_std=False),
    "scale alone": StandardScaler(with_mean=False),
    "neither": StandardScaler(with_mean=False, with_std=False),
    "min-max": MinMaxScaler(),
    "another range": MinMaxScaler((-1, 3)),
    "clipped": MinMaxScaler((-1, 1), clip=True),
}


@pytest.mark.parametrize("scaler", SCALERS.values(), ids=SCALERS)
def test_a_scaler_gives_what_scikit_learn_gives_to_the_rounding_of_fp32(scaler):
    scaler.fit(X)
    want = scaler.transform(OTHERS.astype(np.float32).astype(np.float64))
    got = applied(scaler, OTHERS)
    assert got.dtype == np.float32
    rounding = 4 * np.finfo(np.float32).eps * (np.abs(OTHERS).max(0) / X.std(0).clip(1e-6) + np.abs(want).max(0) + 1)
    assert np.all(np.abs(got - want) <= rounding)


@pytest.mark.parametrize("unknown", ["ignore", "error"])
@pytest.mark.parametrize(
    "values", [PLANS, DRAW.integers(-3, 3, (200, 1)), PLANS == "year"], ids=["text", "int", "bool"]
)
def test_an_encoder_of_categories_gives_what_scikit_learn_gives(values, unknown):
    encoder = OneHotEncoder(handle_unknown=unknown).fit(values)
    steps = from_sklearn(encoder, "x")
    (step,) = steps
    given = codes(values, step.text) if step.text else values
    got = apply(steps, {"x": given})["x"]
    np.testing.assert_array_equal(got, encoder.transform(values).toarray())
    assert (got.dtype, step.unknown) == (np.float32, {"ignore": "zeros", "error": "never"}[unknown])


def test_an_unknown_category_is_all_zeros():
    encoder = OneHotEncoder(handle_unknown="ignore").fit(PLANS)
    (step,) = from_sklearn(encoder, "x")
    strange = np.array([["decade"], ["year"], [""]])
    got = apply([step], {"x": codes(strange, step.text)})["x"]
    np.testing.assert_array_equal(got, encoder.transform(strange).toarray())
    np.testing.assert_array_equal(got, [[0, 0, 0], [0, 0, 1], [0, 0, 0]])


def test_an_ordinal_encoder_is_a_vocabulary():
    encoder = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=3).fit(PLANS)
    (step,) = from_sklearn(encoder, "x")
    strange = np.concatenate([PLANS, [["decade"]]])
    got = apply([step], {"x": codes(strange, step.text)})["x"]
    np.testing.assert_array_equal(got, encoder.transform(strange))
    assert got.dtype == np.int64


def test_a_vocabulary_of_integers_gives_every_other_integer_the_unknown_index():
    step = Vocabulary(input="x", values=(30, -2, 10), indices=(5, 6, 7), unknown=1)
    ends = np.iinfo(np.int64)
    got = apply([step], {"x": np.array([[30, -2, 10, 11, 31, -3, ends.min, ends.max]])})["x"]
    np.testing.assert_array_equal(got, [[5, 6, 7, 1, 1, 1, 1, 1]])


def test_columns_of_a_frame_come_out_as_scikit_learn_puts_them():
    frame = pd.DataFrame({"age": X[:, 0], "paid": X[:, 1], "plan": PLANS[:, 0], "zone": DRAW.integers(1, 4, 200)})
    columns = ColumnTransformer(
        [
            ("kinds", OneHotEncoder(handle_unknown="ignore"), ["plan", "zone"]),
            ("numbers", StandardScaler(), ["age", "paid"]),
            ("nothing", "drop", ["zone"]),
        ]
    ).fit(frame)
    steps = from_sklearn(columns)
    assert [step.kind for step in steps] == ["one-hot", "one-hot", "standard", "concatenate"]
    assert steps[-1] == Concatenate(inputs=("plan", "zone", "numbers"))
    inputs = {
        "numbers": frame[["age", "paid"]].to_numpy(np.float32),
        "plan": codes(frame[["plan"]], steps[0].text),
        "zone": frame[["zone"]].to_numpy(),
    }
    (got,) = apply(steps, inputs).values()
    np.testing.assert_allclose(got, columns.transform(frame), atol=1e-3)
    assert steps[2].columns == ("age", "paid")


REFUSED = {
    "another scaler": (RobustScaler().fit(X), ("x",), "RobustScaler: has no counterpart"),
    "a scaler that was not fitted": (StandardScaler(), ("x",), "want a fitted StandardScaler"),
    "a scaler of two inputs": (StandardScaler().fit(X), ("x", "y"), "want one input with all of its columns"),
    "a pipeline": (make_pipeline(SimpleImputer(), StandardScaler()).fit(X), ("x",), "Pipeline: has no counterpart"),
    "an encoder of another number": (OneHotEncoder().fit(X.astype(int)), ("x",), "want 3 inputs, one a column"),
    "an encoder that drops": (OneHotEncoder(drop="first").fit(PLANS), ("x",), "drop=None"),
    "rare categories together": (OneHotEncoder(min_frequency=9).fit(PLANS), ("x",), "no max_categories"),
    "categories that are gaps": (OneHotEncoder().fit([["a"], [None]]), ("x",), "all text or all integers"),
    "categories of floats": (OneHotEncoder().fit([[0.5], [1.0]]), ("x",), "all text or all integers"),
    "an index for nothing": (OrdinalEncoder().fit(PLANS), ("x",), "an unknown_value of 0 or more"),
    "columns by number": (
        ColumnTransformer([("n", StandardScaler(), [0, 1])]).fit(X),
        (),
        "lists of columns by name",
    ),
    "what is left passes through": (
        ColumnTransformer([("n", StandardScaler(), ["a"])], remainder="passthrough").fit(
            pd.DataFrame({"a": [1], "b": [2]})
        ),
        (),
        "FunctionTransformer: has no counterpart",
    ),
}


@pytest.mark.parametrize("transformer, inputs, words", REFUSED.values(), ids=REFUSED)
def test_what_has_no_counterpart_is_refused_with_what_would_have(transformer, inputs, words):
    with pytest.raises(SpecInvalid, match=words):
        from_sklearn(transformer, *inputs)


def test_a_gap_is_no_text():
    with pytest.raises(SamplesInvalid, match="is no text; got nan; fill gaps with text"):
        codes(np.array(["a", float("nan")], dtype=object), ("a",))


def test_the_steps_are_plain_numbers():
    """What NumPy's own types would do to a document is not left to chance."""
    steps = (*from_sklearn(StandardScaler().fit(X), "x"), *from_sklearn(MinMaxScaler().fit(X), "x"))
    standard, scaled = steps
    assert isinstance(standard, Standard)
    assert isinstance(scaled, MinMax)
    assert {type(value) for value in (*standard.mean, *standard.scale, *scaled.data_min, *scaled.feature_range)} == {
        float
    }
    (hot,) = from_sklearn(OneHotEncoder().fit(DRAW.integers(0, 3, (9, 1))), "x")
    assert isinstance(hot, OneHot)
    assert {type(value) for value in hot.categories} == {int}
