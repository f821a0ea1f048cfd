"""A training script's samples: as arrays of rows, prepared as the spec says, and split for INT8."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from packhouse.errors import SamplesInvalid, SpecInvalid
from packhouse.formats.arrays import Array
from packhouse.spec.steps import OneHot, Standard, Step, Value, lookup, prepared
from packhouse.spec.types import DType, Misplaced
from packhouse.training.preprocessing import codes

if TYPE_CHECKING:
    pass


@dataclass(frozen=True)
class Standardise:
    """The numbers of a fitted scikit-learn StandardScaler: `(x - mean) / scale`, in float32, along the last axis.

    Attributes:
        input: The input that is standardised: float32, (n, ..., features).
        mean: One number a feature.
        scale: One number a feature, none of them 0.
        columns: Names of the features, for people. Empty: they have none.
    """

    input: str
    mean: Sequence[float]
    scale: Sequence[float]
    columns: Sequence[str] = ()


def as_array(value: ArrayLike, where: str) -> Array:
    try:
        array = value.numpy(force=True) if hasattr(value, "numpy") else np.asarray(value)
    except (TypeError, ValueError) as error:  # bfloat16, rows of different length
        raise SamplesInvalid(f"PH-0273 not an array: {error}", where=where) from error
    if not np.ndim(array):
        raise SamplesInvalid("PH-0272 one value is no stack of samples", where=where, want="(n, ...)")
    return np.ascontiguousarray(array)


def as_steps(preprocessing: Standardise | Sequence[Step]) -> tuple[Step, ...]:
    if not isinstance(preprocessing, Standardise):
        return tuple(preprocessing)
    mean, scale = (tuple(float(value) for value in part) for part in (preprocessing.mean, preprocessing.scale))
    columns = tuple(str(column) for column in preprocessing.columns)
    return (Standard(kind="standard", input=preprocessing.input, columns=columns, mean=mean, scale=scale),)


def as_table(step: Step) -> dict[str, Any]:
    return {"kind": step.kind, **step.model_dump(mode="json", exclude_defaults=True)}


def check_steps(steps: Sequence[Step], samples: Mapping[str, Array], named: Mapping[str, Sequence[str | int]]) -> None:
    if unknown := sorted(str(array.dtype) for array in samples.values() if str(array.dtype) not in set(DType)):
        raise SpecInvalid("PH-0271 no input has this dtype", where="inputs", got=unknown[0], want=", ".join(DType))
    try:
        prepared(steps, {key: Value(DType(str(a.dtype)), tuple(named[key])) for key, a in samples.items()})
    except Misplaced as error:
        position, *path = error.path
        where = f"preprocessing[{position}].{'.'.join(map(str, path))}"
        raise SpecInvalid(str(error), where=where) from error


def as_sample(steps: Sequence[Step], key: str, value: ArrayLike) -> Array:
    """Text as codes; one column of categories, which may come as (n,), as (n, 1)."""
    array, step, where = as_array(value, f"inputs: {key}"), lookup(steps, key), f"inputs: {key}"
    if array.dtype.kind in "OUS":
        if step is None or not step.text:
            raise SamplesInvalid(
                "PH-0270 text needs a step that lists it", where=where, next="one-hot or vocabulary, in preprocessing"
            )
        array = codes(array, step.text)
    return array[:, None] if isinstance(step, OneHot) and array.ndim == 1 else array


def as_classes(labels: ArrayLike) -> Array:
    array = as_array(labels, "labels")
    if array.dtype.kind not in "iub" and not (array.dtype.kind == "f" and np.all(array == np.floor(array))):
        raise SamplesInvalid("PH-0269 labels are whole numbers", where="labels", got=str(array.dtype))
    return array.astype(np.int64)


def split_samples(samples: Mapping[str, Array], labels: Array | None, calibration: float) -> dict[str, Array]:
    counts = {key: len(array) for key, array in samples.items()} | (
        {"labels": len(labels)} if labels is not None else {}
    )
    total = min(counts.values(), default=0)
    if len(set(counts.values())) != 1 or total < 2 or not 0 < calibration < 1:
        raise SamplesInvalid(
            "PH-0268 two samples at least, as many of each input, are split in two",
            where="stage",
            got=f"{counts}, {calibration}",
        )
    # Where the running share passes a whole number; the first sample always does, and the second never.
    chosen = np.diff(np.floor(np.arange(-1, total) * calibration)) > 0
    split = {f"calibration.{key}": array[chosen] for key, array in samples.items()}
    split |= {f"evaluation.{key}": array[~chosen] for key, array in samples.items()}
    return split | ({"label": labels[~chosen]} if labels is not None else {})
