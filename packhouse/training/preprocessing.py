"""The training side's preprocessing: steps applied with numpy, text as codes, and the numbers of scikit-learn.

    steps = from_sklearn(column_transformer)
    packhouse.stage(model, ..., preprocessing=steps)

scikit-learn is not imported here, and no pickle or joblib is read: the numbers are taken from fitted transformers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, assert_never

import numpy as np
from numpy.typing import ArrayLike

from packhouse.errors import SamplesInvalid, SpecInvalid
from packhouse.spec.steps import UNKNOWN, Concatenate, MinMax, OneHot, Standard, Step, Vocabulary
from packhouse.weights.safetensors_codec import Array

__all__ = ["Concatenate", "MinMax", "OneHot", "Standard", "Step", "Vocabulary", "apply", "codes", "from_sklearn"]


def apply(steps: Iterable[Step], inputs: Mapping[str, Array]) -> dict[str, Array]:
    """Applies steps to raw inputs, in float32, as the released formats do.

    Args:
        steps: The steps, in their order.
        inputs: Input name -> array, (n, ...). Text is given as codes, int64: see `codes`.

    Returns:
        Name -> array, in the order in which the module takes them.
    """
    values = dict(inputs)
    for step in steps:
        match step:
            case Concatenate():
                values[step.inputs[0]] = np.concatenate([values[name] for name in step.inputs], axis=-1)
                for name in step.inputs[1:]:
                    del values[name]
            case _:
                values[step.input] = _applied(step, np.asarray(values[step.input]))
    return values


def _applied(step: Standard | MinMax | OneHot | Vocabulary, x: Array) -> Array:
    match step:
        case Standard():
            standard: Array = (x.astype(np.float32) - _f32(step.mean)) / _f32(step.scale)
            return standard
        case MinMax():
            low, high = _f32(step.feature_range)
            scaled: Array = (x.astype(np.float32) - _f32(step.data_min)) * _f32(step.factors) + low
            return np.asarray(scaled.clip(low, high)) if step.clip else scaled
        case OneHot():
            hot: Array = (x.astype(np.int64)[..., None] == np.array(step.codes)).astype(np.float32)
            return hot.reshape(*x.shape[:-1], x.shape[-1] * len(step.codes))
        case Vocabulary():
            table: Array = np.array(step.table, dtype=np.int64)
            return np.asarray(table[x.astype(np.int64).clip(step.first, max(step.codes) + 1) - step.first])
    assert_never(step)


def _f32(values: Sequence[float]) -> Array:
    return np.asarray(values, dtype=np.float32)


def codes(text: ArrayLike, values: Sequence[str]) -> Array:
    """Replaces text by its codes.

    Args:
        text: Strings, of any shape.
        values: The strings that a step lists.

    Returns:
        int64, of the same shape: the position of each string among the values, and -1 for any other string.

    Raises:
        SamplesInvalid: An entry is no string.
    """
    known = {value: code for code, value in enumerate(values)}
    array = np.asarray(text, dtype=object)
    for entry in array.flat:
        if not isinstance(entry, str):
            raise SamplesInvalid(
                "PH-0159 is no text", where="preprocessing", got=repr(entry)[:80], next="fill gaps with text"
            )
    return np.array([known.get(entry, UNKNOWN) for entry in array.flat], dtype=np.int64).reshape(array.shape)


# scikit-learn


def from_sklearn(transformer: Any, *inputs: str) -> tuple[Step, ...]:
    """The steps that compute what a fitted transformer of scikit-learn computes.

    Args:
        transformer: A fitted StandardScaler, MinMaxScaler, OneHotEncoder or OrdinalEncoder. Or a ColumnTransformer of
            these and `"drop"`, with columns by name, whose parts are concatenated.
        *inputs: Names of inputs. A scaler takes one, (n, features), with all of its columns. An encoder takes one for
            each column, (n, 1). A ColumnTransformer takes none: a scaler's input is called as its part, an encoder's as
            the column.

    Returns:
        The steps, for `packhouse.stage(preprocessing=...)`.

    Raises:
        SpecInvalid: Another transformer, or one with an option that no step has.
    """
    if hasattr(transformer, "transformers_"):
        return _of_columns(transformer)
    if hasattr(transformer, "categories_"):
        return _of_encoder(transformer, inputs)
    if len(inputs) != 1:
        raise _unfit(transformer, "one input with all of its columns", got=str(list(inputs)))
    columns = tuple(str(name) for name in getattr(transformer, "feature_names_in_", ()))
    if hasattr(transformer, "data_min_"):
        low, high = (float(end) for end in transformer.feature_range)
        ends = {"data_min": _floats(transformer.data_min_), "data_max": _floats(transformer.data_max_)}
        clip = bool(transformer.clip)
        return (MinMax(kind="min-max", input=inputs[0], columns=columns, feature_range=(low, high), clip=clip, **ends),)
    if hasattr(transformer, "with_mean") and hasattr(transformer, "n_features_in_"):
        count = int(transformer.n_features_in_)
        mean = _floats(transformer.mean_) if transformer.with_mean else (0.0,) * count
        scale = _floats(transformer.scale_) if transformer.with_std else (1.0,) * count
        return (Standard(kind="standard", input=inputs[0], columns=columns, mean=mean, scale=scale),)
    raise _unfit(transformer, "a fitted StandardScaler, MinMaxScaler, OneHotEncoder or OrdinalEncoder")


def _of_columns(transformer: Any) -> tuple[Step, ...]:
    steps: list[Step] = []
    parts: list[str] = []
    for name, part, columns in transformer.transformers_:
        if isinstance(part, str) and part == "drop":
            continue
        if not isinstance(columns, (list, tuple)) or not all(isinstance(column, str) for column in columns):
            raise _unfit(transformer, "lists of columns by name", got=f"{name}: {columns!r}"[:80])
        inputs = tuple(columns) if hasattr(part, "categories_") else (str(name),)
        steps += from_sklearn(part, *inputs)
        parts += inputs
    return (*steps, Concatenate(kind="concatenate", inputs=tuple(parts))) if len(parts) > 1 else tuple(steps)


def _of_encoder(encoder: Any, inputs: Sequence[str]) -> tuple[Step, ...]:
    categories = [_categories(encoder, values) for values in encoder.categories_]
    if len(inputs) != len(categories):
        raise _unfit(encoder, f"{len(categories)} inputs, one a column", got=str(list(inputs)))
    if getattr(encoder, "max_categories", None) is not None or getattr(encoder, "min_frequency", None) is not None:
        raise _unfit(encoder, "no max_categories and no min_frequency")
    columns = zip(inputs, categories, strict=True)
    if not hasattr(encoder, "drop_idx_"):
        return tuple(
            Vocabulary(kind="vocabulary", input=name, values=v, unknown=_unknown(encoder)) for name, v in columns
        )
    if encoder.handle_unknown not in ("error", "ignore") or encoder.drop_idx_ is not None:
        raise _unfit(encoder, 'handle_unknown "error" or "ignore", and drop=None')
    unknown = "zeros" if encoder.handle_unknown == "ignore" else "never"
    return tuple(OneHot(kind="one-hot", input=name, categories=v, unknown=unknown) for name, v in columns)


def _unknown(encoder: Any) -> int:
    value = encoder.unknown_value
    if encoder.handle_unknown != "use_encoded_value" or value != value or int(value) != value or value < 0:
        raise _unfit(encoder, 'handle_unknown="use_encoded_value", and an unknown_value of 0 or more')
    return int(value)


def _categories(encoder: Any, values: Any) -> tuple[int, ...] | tuple[str, ...]:
    plain = np.asarray(values).tolist()
    if all(isinstance(value, str) for value in plain):
        return tuple(plain)
    if all(isinstance(value, (int, np.integer)) for value in plain):  # bool is one too
        return tuple(int(value) for value in plain)
    raise _unfit(encoder, "categories that are all text or all integers", got=str(plain)[:80])


def _floats(values: Any) -> tuple[float, ...]:
    return tuple(float(value) for value in values)


def _unfit(transformer: Any, want: str, got: str = "") -> SpecInvalid:
    return SpecInvalid(
        "PH-0158 has no counterpart among the steps",
        where=f"preprocessing: {type(transformer).__name__}",
        got=got,
        want=want,
    )
