"""The inputs that a format is judged on: the source's own samples, and edge cases made from them and the spec."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from packhouse.errors import SamplesInvalid, UnsafeWeights, WeightsInvalid
from packhouse.formats.arrays import Array
from packhouse.spec.model import Axis, Input, Labels, Spec, Tensor
from packhouse.spec.steps import UNKNOWN, lookup
from packhouse.spec.types import DType
from packhouse.weights.safetensors_codec import read_numpy

MAX_CASE_ELEMENTS = 4_000_000
"""Largest number of elements of one probe: batches and other axes are tried up to this size, if that is below their
largest."""

FEW_ROWS = 8
"""Between the smallest and the largest batch, sizes up to this are tried."""

ANSWER = "answer."
"""Tensors among the samples whose names begin so are the trained model's outputs: see trained_outputs.py."""

MAX_CODE_PROBES = 8
"""Of a vocabulary that has more values than one probe has places, so many parts are tried."""

LARGE = 100.0
"""Floating inputs are multiplied by this for the probe of large values, and clipped to their declared range."""


@dataclass(frozen=True)
class Probe:
    """Inputs to try. real: made of samples only, so that the model must answer them with finite numbers."""

    name: str
    inputs: Mapping[str, Array]
    real: bool


def read_samples(path: Path) -> dict[str, Array]:
    """Raises SamplesInvalid: not a safetensors file that packhouse reads."""
    try:
        return read_numpy(path)
    except (UnsafeWeights, WeightsInvalid) as error:
        raise SamplesInvalid(error.coded, where=error.where, got=error.got, want=error.want) from error


def check_samples(spec: Spec, samples: Mapping[str, Array]) -> None:
    """Raises SamplesInvalid: a missing or unknown tensor, another dtype or shape than declared, NaN, no samples,
    inputs that disagree about an axis, labels that do not fit."""
    wanted = {f"{split}.{tensor.name}" for split in ("calibration", "evaluation") for tensor in spec.inputs}
    wanted |= {"label"} if spec.samples.labels else set()
    wanted |= {"slice"} if spec.samples.slices else set()
    if missing := sorted(wanted - set(samples)):
        raise SamplesInvalid(
            "PH-0181 tensor is missing", where=f"{spec.samples.file}: {missing[0]}", got=_list(samples)
        )
    answers = {f"{ANSWER}{output.name}" for output in spec.outputs}
    if extra := sorted(set(samples) - wanted - answers):
        raise SamplesInvalid(
            "PH-0182 tensor is not declared", where=f"{spec.samples.file}: {extra[0]}", want=_list(wanted)
        )
    for split in ("calibration", "evaluation"):
        counts = {}
        sizes: dict[str, int] = {}
        for tensor in spec.inputs:
            _check_tensor(
                spec, tensor, samples[f"{split}.{tensor.name}"], f"{spec.samples.file}: {split}.{tensor.name}"
            )
            array = samples[f"{split}.{tensor.name}"]
            counts[tensor.name] = len(array)
            for axis, got in zip(tensor.shape[1:] if spec.batch else tensor.shape, array.shape[1:], strict=True):
                if isinstance(axis, str) and sizes.setdefault(axis, got) != got:
                    raise SamplesInvalid(
                        f"PH-0184 axis {axis!r} has two sizes",
                        where=f"{spec.samples.file}: {split}.{tensor.name}",
                        got=str(got),
                        want=f"{sizes[axis]}, as before",
                    )
        if len(set(counts.values())) != 1:
            raise SamplesInvalid(
                "PH-0183 inputs differ in number of samples", where=f"{spec.samples.file}: {split}", got=str(counts)
            )
        for tensor in spec.inputs:
            if tensor.lengths_of in sizes:
                where = f"{spec.samples.file}: {split}.{tensor.name}"
                _check_limits(samples[f"{split}.{tensor.name}"], 0, sizes[tensor.lengths_of], where, "no such length")
    count = len(samples[f"evaluation.{spec.inputs[0].name}"])
    if spec.samples.labels is Labels.CLASS:
        _check_labels(spec, samples["label"], count)
    elif spec.samples.labels is Labels.VALUE:
        _check_values(samples["label"], count, f"{spec.samples.file}: label")
    if spec.samples.slices:
        where = f"{spec.samples.file}: slice"
        _check_form(samples["slice"], count, (np.int64,), where)
        _check_limits(samples["slice"], 0, len(spec.samples.slices) - 1, where, "no such slice")


def _check_tensor(spec: Spec, tensor: Input, array: Array, where: str) -> None:
    if array.dtype != np.dtype(tensor.dtype.value):
        raise SamplesInvalid(
            "PH-0176 dtype differs from the spec", where=where, got=str(array.dtype), want=tensor.dtype.value
        )
    want = tensor.shape[1:] if spec.batch else tensor.shape
    if array.ndim != len(want) + 1:
        raise SamplesInvalid(
            "PH-0177 rank differs from the spec", where=where, got=str(array.shape), want=f"(n, {_list(want)})"
        )
    for got, size in zip(array.shape[1:], want, strict=True):
        axis = spec.axes[size] if isinstance(size, str) else None
        if (axis and not axis.allows(got)) or (axis is None and got != size):
            bounds = f"{size} {axis.words}" if axis else str(size)
            raise SamplesInvalid("PH-0180 shape differs from the spec", where=where, got=str(array.shape), want=bounds)
    if len(array) == 0:
        raise SamplesInvalid("PH-0178 no samples", where=where, next="stage at least one real sample in each split")
    if tensor.dtype.floating and _is_illegal(tensor, array):
        raise SamplesInvalid("PH-0179 NaN or infinity among the samples", where=where)
    if tensor.nan or tensor.inf:
        array = array[np.isfinite(array)]  # what is left has to lie in the range
    if tensor.range:
        _check_limits(array, *tensor.range, where, "values outside the declared range", want=str(tensor.range))
    _check_codes(spec, tensor, array, where)


def _is_illegal(tensor: Input, array: Array) -> bool:
    return bool((not tensor.nan and np.any(np.isnan(array))) or (not tensor.inf and np.any(np.isinf(array))))


def _check_limits(array: Array, low: float, high: float, where: str, what: str, want: str = "") -> None:
    if array.size and (array.min() < low or array.max() > high):
        got = f"{array.min()} to {array.max()}"
        raise SamplesInvalid(what, where=where, got=got, want=want or f"{low} to {high}")


def _check_codes(spec: Spec, tensor: Input, array: Array, where: str) -> None:
    step = lookup(spec.preprocessing, tensor.name)
    if step is None:
        return
    codes = [*step.codes, *((UNKNOWN,) if step.unknown != "never" else ())]
    strange = array[~np.isin(array, codes)] if step.text or step.unknown == "never" else array[:0]
    if strange.size:
        want = "a code of a text that is listed" if step.text else "a category that is listed"
        raise SamplesInvalid("PH-0175 no such code", where=where, got=str(strange[0]), want=want)


def _check_labels(spec: Spec, labels: Array, samples: int) -> None:
    where = f"{spec.samples.file}: label"
    _check_form(labels, samples, (np.int64,), where)
    scored = [output for output in spec.outputs if output.scores]
    if not scored:
        raise SamplesInvalid("PH-0172 labels need an output of kind `scores`", where=where)
    if len(scored[0].shape) != (2 if spec.batch else 1):
        raise SamplesInvalid(
            "PH-0173 one label a sample needs one row of scores a sample",
            where=where,
            got=f"{scored[0].name} {scored[0].shape}",
        )
    classes = scored[0].shape[-1]
    if labels.min() < 0 or (isinstance(classes, int) and labels.max() >= classes):
        raise SamplesInvalid(
            "PH-0174 no such class",
            where=where,
            got=f"{labels.min()} to {labels.max()}",
            want=f"0 to {classes - 1}" if isinstance(classes, int) else "0 or more",
        )


def _check_values(labels: Array, samples: int, where: str) -> None:
    _check_form(labels, samples, (np.float32, np.float64), where)
    if not np.all(np.isfinite(labels)):
        raise SamplesInvalid("PH-0171 NaN or infinity among the labels", where=where)


def _check_form(array: Array, samples: int, dtypes: Sequence[type], where: str) -> None:
    """One number a sample."""
    if array.dtype not in dtypes or array.shape != (samples,):
        want = f"{' or '.join(np.dtype(dtype).name for dtype in dtypes)} ({samples},)"
        raise SamplesInvalid("PH-0170 wrong form", where=where, got=f"{array.dtype} {array.shape}", want=want)


def probes(spec: Spec, samples: Mapping[str, Array]) -> Iterator[Probe]:
    """The source's evaluation samples at several batch sizes, then every other dynamic axis at its ends and an odd
    size, then zeros, large and negated values."""
    rows = {tensor.name: samples[f"evaluation.{tensor.name}"] for tensor in spec.inputs}
    if spec.batch is None:
        count = min(4, len(next(iter(rows.values()))))
        for index in range(count):
            yield Probe(f"sample {index}", {name: array[index] for name, array in rows.items()}, real=True)
        middle = {name: array[0] for name, array in rows.items()}
    else:
        for size in _batches(spec, rows):
            yield Probe(f"{spec.batch} {size}", {name: _rows(array, size) for name, array in rows.items()}, real=True)
        axis = spec.axes[spec.batch]
        middle = {name: _rows(array, min(max(2, axis.min), axis.max)) for name, array in rows.items()}
    for name, axis in spec.axes.items():
        if name != spec.batch:
            most = _most(spec.inputs, middle, name, axis)
            for size in sorted({axis.min, _odd(axis.min, most), most}):
                yield Probe(f"{name} {size}", _resized(spec.inputs, middle, name, size), real=True)
    yield from _every_code(spec, middle)
    yield from _values(spec.inputs, middle)


def _every_code(spec: Spec, middle: Mapping[str, Array]) -> Iterator[Probe]:
    """Every value that preprocessing lists, whether a sample has it or not, and an unknown one where the spec says
    what becomes of it."""
    listed = {tensor.name: _listed(spec, tensor) for tensor in spec.inputs}
    if spec.batch:
        axis = spec.axes[spec.batch]
        needed = max(math.ceil(len(codes) / max(middle[name][0].size, 1)) for name, codes in listed.items())
        rows = min(max(needed, axis.min), _most(spec.inputs, middle, spec.batch, axis))
        middle = _resized(spec.inputs, middle, spec.batch, rows)
    parts = max(math.ceil(len(codes) / max(middle[name].size, 1)) for name, codes in listed.items())
    for number in range(min(MAX_CODE_PROBES, parts)):
        inputs = {name: _filled(array, listed[name], number) for name, array in middle.items()}
        yield Probe(f"every code {number}", inputs, real=True)


def _listed(spec: Spec, tensor: Input) -> list[int]:
    """The codes that the first step of the input lists, after an unknown one where that has a meaning; what the input
    may not have left out."""
    step = lookup(spec.preprocessing, tensor.name)
    if step is None:
        return []
    low, high = bounds(tensor)
    known = [code for code in step.codes if low <= code <= high]
    beside = (code for code in (UNKNOWN, max(step.codes) + 1, min(step.codes) - 1) if code not in step.codes)
    return [*([code for code in beside if low <= code <= high][:1] if step.unknown != "never" else []), *known]


def _filled(array: Array, codes: Sequence[int], turn: int) -> Array:
    if not codes:
        return array
    places = np.arange(array.size) + turn * array.size
    return np.array(codes, dtype=array.dtype)[places % len(codes)].reshape(array.shape)


def sizes_of(tensors: Sequence[Tensor], arrays: Iterable[Mapping[str, Array]]) -> dict[str, list[int]]:
    """Axis -> the sizes that it has in any of the arrays, in order. tensors: what the arrays are declared as."""
    found: dict[str, set[int]] = {}
    for each in arrays:
        for tensor in tensors:
            if tensor.name not in each:
                continue
            for axis, size in zip(tensor.shape, each[tensor.name].shape, strict=True):
                if isinstance(axis, str):
                    found.setdefault(axis, set()).add(size)
    return {axis: sorted(sizes) for axis, sizes in sorted(found.items())}


def not_tried(spec: Spec, compared: Mapping[str, Sequence[int]]) -> list[str]:
    """Which legal sizes lie outside of those that were compared, in words. Between the smallest and the largest some
    are compared and stand for the others."""
    words = []
    for name, axis in spec.axes.items():
        sizes = compared.get(name, ())
        if not sizes:
            words.append(f"{name}: no size")
            continue
        if axis.min < sizes[0]:
            words.append(f"{name}: below {sizes[0]}")
        if axis.max > sizes[-1]:
            words.append(f"{name}: above {sizes[-1]}")
    return words


def bounds(tensor: Input) -> tuple[float, float]:
    """The smallest and largest value that an input may have, by its dtype and its range."""
    if np.issubdtype(np.dtype(tensor.dtype.value), np.integer):
        limits = np.iinfo(tensor.dtype.value)
        return tensor.range or (int(limits.min), int(limits.max))
    return tensor.range or ((0, 1) if tensor.dtype is DType.BOOL else (-math.inf, math.inf))


def _values(inputs: Sequence[Input], middle: Mapping[str, Array]) -> Iterator[Probe]:
    if not any(np.issubdtype(middle[tensor.name].dtype, np.inexact) for tensor in inputs):
        return
    for name, factor in (("zeros", 0.0), ("large", LARGE), ("negated", -1.0)):
        yield Probe(name, {tensor.name: _scaled(tensor, middle[tensor.name], factor) for tensor in inputs}, real=False)


def _scaled(tensor: Input, array: Array, factor: float) -> Array:
    if not np.issubdtype(array.dtype, np.inexact):
        return array
    limits = np.finfo(str(array.dtype))
    low, high = tensor.range or (float(limits.min), float(limits.max))
    return np.clip(array.astype(np.float64) * factor, low, high).astype(array.dtype)


def _most(inputs: Sequence[Input], middle: Mapping[str, Array], name: str, axis: Axis) -> int:
    """The largest size of the axis at which all inputs together stay below MAX_CASE_ELEMENTS."""
    fixed = per_size = 0
    for tensor in inputs:
        times = tensor.shape.count(name)
        elements = math.prod(
            got for size, got in zip(tensor.shape, middle[tensor.name].shape, strict=True) if size != name
        )
        if times > 1:  # a square grows faster: held to its own root
            per_size += elements * math.isqrt(MAX_CASE_ELEMENTS)
        elif times:
            per_size += elements
        else:
            fixed += elements
    return max(axis.min, min(axis.max, (MAX_CASE_ELEMENTS - fixed) // max(per_size, 1)))


def most_rows(axis: Axis, rows: Mapping[str, Array]) -> int:
    """The largest batch that is tried: the axis's own, or as many samples as stay below MAX_CASE_ELEMENTS."""
    a_row = sum(int(np.prod(array.shape[1:])) for array in rows.values())
    return max(axis.min, min(axis.max, MAX_CASE_ELEMENTS // max(a_row, 1)))


def _batches(spec: Spec, rows: Mapping[str, Array]) -> list[int]:
    axis = spec.axes[spec.batch or ""]
    fitting = most_rows(axis, rows)
    few = min(fitting, max(FEW_ROWS, axis.min + 1))
    sizes = {axis.min, 1, 2, 3, _odd(axis.min, few), few, fitting}
    return sorted(size for size in sizes if axis.min <= size <= fitting)


def _odd(low: int, high: int) -> int:
    """The prime nearest below the middle, which no exporter's tile divides; the smallest size where there is none."""
    return next((n for n in range((low + high) // 2, max(low, 2) - 1, -1) if _is_prime(n)), low)


def _is_prime(n: int) -> bool:
    return all(n % d for d in range(2, math.isqrt(n) + 1))


def _rows(array: Array, count: int) -> Array:
    return repeated(array, 0, count)


def repeated(array: Array, position: int, size: int) -> Array:
    """`size` entries along an axis, from the first again where there are fewer. (numpy's own wrapping subtracts until
    it fits, which takes minutes for a long axis.)"""
    return np.ascontiguousarray(np.take(array, np.arange(size) % array.shape[position], axis=position))


def _resized(inputs: Sequence[Input], middle: Mapping[str, Array], axis: str, size: int) -> dict[str, Array]:
    resized = dict(middle)
    for tensor in inputs:
        for position, name in enumerate(tensor.shape):
            if name == axis:
                resized[tensor.name] = repeated(resized[tensor.name], position, size)
    return resized


def _list(names: object) -> str:
    return ", ".join(str(name) for name in names) if isinstance(names, (set, tuple, dict, Mapping)) else str(names)
