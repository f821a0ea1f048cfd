"""Preprocessing as numbers: the steps of `[[preprocessing]]`, applied in their order, part of every format.

Each step takes the value of one name, an input at first, and puts its result there; `concatenate` takes several.
`after` is what a step makes of dtypes and shapes; packhouse/training/preprocessing.py computes with numpy, and the
released formats with torch. docs/preprocessing.md describes them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from packhouse.artifact import Frozen
from packhouse.spec.types import DType, Flag, Misplaced, Number, TensorName

UNKNOWN = -1
"""The code of every text that a step does not list."""

MAX_SPAN = 2**20
"""From the smallest to the largest integer of a vocabulary, which becomes a table of this size."""

Integer = Annotated[int, Field(strict=True, ge=-(2**62), le=2**62)]
Index = Annotated[int, Field(strict=True, ge=0, lt=2**31)]
Codes = Annotated[tuple[Integer, ...], Field(min_length=1)] | Annotated[tuple[str, ...], Field(min_length=1)]


@dataclass(frozen=True)
class Value:
    """What is known of a tensor on its way to the model. shape: sizes and names of axes."""

    dtype: DType
    shape: tuple[int | str, ...]


Values = dict[str, Value]


def _found(name: str, values: Values, key: str = "input", *position: int) -> Value:
    if name not in values:
        raise Misplaced(f"PH-0296 {name!r} is not among the inputs, {', '.join(values)}", key, *position)
    return values[name]


def _features(name: str, values: Values, count: int, key: str) -> Value:
    value = _found(name, values)
    if value.dtype is not DType.FLOAT32 or not value.shape or value.shape[-1] != count:
        numbers = {"mean": "means", "data_min": "minima"}[key]
        what = f"PH-0295 {count} {numbers}, so input {name!r} must be float32 with a last axis of that size"
        raise Misplaced(what, key)
    return value


def _coded(name: str, values: Values, text: bool) -> Value:
    value = _found(name, values)
    if text and value.dtype is not DType.INT64:
        raise Misplaced(f"PH-0293 text has int64 codes, and {name!r} is {value.dtype}", "input")
    if value.dtype.floating:
        raise Misplaced(f"PH-0294 {name!r} is {value.dtype}, and only integers are looked up", "input")
    return value


class Standard(Frozen):
    """(x - mean) / scale along the last axis of a float32 input, as scikit-learn's StandardScaler computes it.

    Source: https://scikit-learn.org/stable/modules/generated/sklearn.preprocessing.StandardScaler.html"""

    kind: Literal["standard"] = "standard"
    input: TensorName
    """The name whose value the step takes."""
    columns: tuple[str, ...] = ()
    """Names of the features, for people."""
    mean: tuple[Number, ...]
    """One number a feature."""
    scale: tuple[Number, ...]
    """One number a feature, none of them 0."""

    @model_validator(mode="after")
    def _same_length(self) -> Self:
        if len(self.mean) != len(self.scale) or (self.columns and len(self.columns) != len(self.mean)):
            raise Misplaced("PH-0289 columns, mean and scale must have one entry per feature", "scale")
        if any(np.float32(value) == 0 for value in self.scale):
            raise Misplaced(
                "PH-0290 a scale of 0 in float32 would divide by zero: use 1 for a constant column", "scale"
            )
        _check_float32(self.mean, "mean")
        _check_float32(self.scale, "scale")
        return self

    def after(self, values: Values) -> Values:
        return {**values, self.input: _features(self.input, values, len(self.mean), "mean")}


class MinMax(Frozen):
    """(x - data_min) / (data_max - data_min) * (high - low) + low along the last axis of a float32 input, with
    (low, high) = feature_range, as scikit-learn's MinMaxScaler computes it.

    Source: https://scikit-learn.org/stable/modules/generated/sklearn.preprocessing.MinMaxScaler.html"""

    kind: Literal["min-max"] = "min-max"
    input: TensorName
    """The name whose value the step takes."""
    columns: tuple[str, ...] = ()
    """Names of the features, for people."""
    data_min: tuple[Number, ...]
    """One number a feature."""
    data_max: tuple[Number, ...]
    """One number a feature, not below its minimum."""
    feature_range: tuple[Number, Number] = (0.0, 1.0)
    """Lowest and highest value of the result."""
    clip: Flag = False
    """Whether a value outside becomes the nearest end."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if len(self.data_min) != len(self.data_max) or (self.columns and len(self.columns) != len(self.data_min)):
            raise Misplaced("PH-0287 columns, data_min and data_max must have one entry per feature", "data_max")
        if any(low > high for low, high in zip(self.data_min, self.data_max, strict=True)):
            raise Misplaced("PH-0288 a data_max is below its data_min", "data_max")
        if self.feature_range[0] >= self.feature_range[1]:
            raise Misplaced("PH-0254 must go up", "feature_range")
        _check_float32(self.data_min, "data_min")
        _check_float32(self.factors, "data_max")
        return self

    @property
    def factors(self) -> tuple[float, ...]:
        """One a feature; a constant column counts as one unit wide, as in scikit-learn."""
        low, high = self.feature_range
        widths = (top - bottom for bottom, top in zip(self.data_min, self.data_max, strict=True))
        return tuple((high - low) / (width or 1.0) for width in widths)

    def after(self, values: Values) -> Values:
        return {**values, self.input: _features(self.input, values, len(self.data_min), "data_min")}


def _check_float32(values: Iterable[float], key: str) -> None:
    """Raises Misplaced: a value, or what the graph computes with, is beyond float32."""
    with np.errstate(over="ignore"):
        if not all(np.isfinite(np.float32(value)) for value in values):
            raise Misplaced("PH-0292 holds a number that float32 can not compute with", key)


class OneHot(Frozen):
    """1.0 in the place of the category, 0.0 elsewhere: each column of the last axis becomes one column a category."""

    kind: Literal["one-hot"] = "one-hot"
    input: TensorName
    """The name whose value the step takes."""
    categories: Codes
    """The categories, each once."""
    unknown: Literal["zeros", "never"]
    """Any other category. `zeros`: it is all zeros, and that is tried. `never`: samples may have none, and nothing
    is promised of one."""

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        _check_distinct(self.categories, "categories")
        return self

    @property
    def text(self) -> tuple[str, ...]:
        return _text(self.categories)

    @property
    def codes(self) -> tuple[int, ...]:
        """What stands in the tensor for each category."""
        return _codes(self.categories)

    def after(self, values: Values) -> Values:
        shape = _coded(self.input, values, bool(self.text)).shape
        if not shape or not isinstance(shape[-1], int):
            what = f"PH-0286 {self.input!r} is {list(shape)}, and needs a last axis of columns: 1 for one column"
            raise Misplaced(what, "input")
        return {**values, self.input: Value(DType.FLOAT32, (*shape[:-1], shape[-1] * len(self.categories)))}


class Vocabulary(Frozen):
    """The index of each value, int64, such as an embedding takes."""

    kind: Literal["vocabulary"] = "vocabulary"
    input: TensorName
    """The name whose value the step takes."""
    values: Codes
    """The values, each once; integers at most 1,048,576 apart."""
    indices: tuple[Index, ...] = ()
    """The index of each value. None: its position."""
    unknown: Index
    """The index of every other value."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        _check_distinct(self.values, "values")
        if self.indices and len(self.indices) != len(self.values):
            raise Misplaced(f"PH-0284 {len(self.indices)} indices of {len(self.values)} values", "indices")
        if max(self.codes) - min(self.codes) >= MAX_SPAN:
            raise Misplaced(f"PH-0285 lie too far apart: from smallest to largest at most {MAX_SPAN:,}", "values")
        return self

    @property
    def text(self) -> tuple[str, ...]:
        return _text(self.values)

    @property
    def codes(self) -> tuple[int, ...]:
        """What stands in the tensor for each value."""
        return _codes(self.values)

    @property
    def first(self) -> int:
        """The code before the smallest: where the table begins."""
        return min(self.codes) - 1

    @property
    def table(self) -> list[int]:
        """The index of every code from `first` to the one after the largest: both ends are unknown."""
        found = dict(zip(self.codes, self.indices or range(len(self.codes)), strict=True))
        return [found.get(code, self.unknown) for code in range(self.first, max(self.codes) + 2)]

    def after(self, values: Values) -> Values:
        return {**values, self.input: Value(DType.INT64, _coded(self.input, values, bool(self.text)).shape)}


class Concatenate(Frozen):
    """Several float32 values side by side along the last axis, in this order; the model takes them as one tensor, in
    the place and under the name of the first."""

    kind: Literal["concatenate"] = "concatenate"
    inputs: Annotated[tuple[TensorName, ...], Field(min_length=2)]
    """Two names at least, in the order of the columns. The module gets one tensor, in the place of the first."""

    def after(self, values: Values) -> Values:
        parts = [_found(name, values, "inputs", position) for position, name in enumerate(self.inputs)]
        width = 0
        for position, (name, value) in enumerate(zip(self.inputs, parts, strict=True)):
            size = value.shape[-1] if value.shape else None
            if name in self.inputs[:position]:
                raise Misplaced(f"PH-0257 {name!r} stands there twice", "inputs", position)
            if value.dtype is not DType.FLOAT32 or not isinstance(size, int):
                what = f"{name!r} is {value.dtype} {list(value.shape)} here"
                raise Misplaced(
                    f"PH-0282 {what}, and must be float32 with a last axis of a fixed size", "inputs", position
                )
            if value.shape[:-1] != parts[0].shape[:-1]:
                axes = f"{list(value.shape[:-1])} and {self.inputs[0]!r} {list(parts[0].shape[:-1])}"
                raise Misplaced(f"PH-0283 {name!r} has the axes {axes} before the last", "inputs", position)
            width += size
        joined = {**values, self.inputs[0]: Value(DType.FLOAT32, (*parts[0].shape[:-1], width))}
        return {name: value for name, value in joined.items() if name not in self.inputs[1:]}


Step = Annotated[Standard | MinMax | OneHot | Vocabulary | Concatenate, Field(discriminator="kind")]
KINDS = ("standard", "min-max", "one-hot", "vocabulary", "concatenate")


def listed(written: Any) -> Any:
    """One table is a list of one step, and a step that does not say its kind is `standard`."""
    if isinstance(written, dict):
        written = [written]
    if not isinstance(written, (list, tuple)):
        return written
    return [{"kind": "standard", **step} if isinstance(step, dict) else step for step in written]


def text_of(steps: Sequence[Step]) -> dict[str, tuple[str, ...]]:
    """The inputs that are text -> the values that have a code of their own: their position."""
    return {step.input: step.text for step in steps if isinstance(step, (OneHot, Vocabulary)) and step.text}


def lookup(steps: Sequence[Step], name: str) -> OneHot | Vocabulary | None:
    """The step that looks up what comes in under this name; None where nothing does, or arithmetic does first."""
    first = next((step for step in steps if name in _read(step)), None)
    return first if isinstance(first, (OneHot, Vocabulary)) else None


def prepared(steps: Sequence[Step], values: Values) -> Values:
    """What the model takes, by name, in its order. Raises Misplaced, its path beginning with the step's number."""
    for position, step in enumerate(steps):
        try:
            _check_text(position, steps)
            values = step.after(values)
        except Misplaced as error:
            raise Misplaced(str(error), position, *error.path) from error
    return values


def _check_text(position: int, steps: Sequence[Step]) -> None:
    """Raises Misplaced: a step lists text, and its input is no longer what came in."""
    step = steps[position]
    if isinstance(step, (OneHot, Vocabulary)) and step.text and any(step.input in _read(e) for e in steps[:position]):
        key = "categories" if isinstance(step, OneHot) else "values"
        raise Misplaced(f"PH-0291 text comes in, so this must be the first step of {step.input!r}", key)


def _read(step: Step) -> tuple[str, ...]:
    return step.inputs if isinstance(step, Concatenate) else (step.input,)


def _check_distinct(values: Sequence[int | str], key: str) -> None:
    seen: set[int | str] = set()
    for position, value in enumerate(values):
        if value in seen:
            raise Misplaced(f"PH-0257 {value!r} stands there twice", key, position)
        seen.add(value)


def _text(values: Sequence[int | str]) -> tuple[str, ...]:
    return tuple(value for value in values if isinstance(value, str))


def _codes(values: Sequence[int | str]) -> tuple[int, ...]:
    return tuple(position if isinstance(value, str) else value for position, value in enumerate(values))
