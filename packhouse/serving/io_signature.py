"""What the model takes, from package.toml: names, datatypes, shapes, axes, ranges; and finite numbers only.

The order of checks is fixed: names, datatype, rank, sizes, axes, finiteness, range. The first finding is the answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from packhouse.formats.arrays import Array
from packhouse.serving.datatypes import BY_SPEC, Datatype, datatype_of
from packhouse.serving.errors import RequestRefused
from packhouse.spec.model import Axis, Input, Spec, Tensor
from packhouse.spec.steps import MinMax, Standard


@dataclass(frozen=True)
class Wanted:
    """One input or output. shape: sizes, and names of axes where the size may change. range: both ends included."""

    name: str
    datatype: Datatype
    shape: tuple[int | str, ...]
    range: tuple[float, float] | None = None

    @property
    def wire_shape(self) -> list[int]:
        """As the protocol's metadata has it: -1 where the size may change."""
        return [size if isinstance(size, int) else -1 for size in self.shape]


@dataclass(frozen=True)
class Contract:
    """columns: what a row's values along the last axis of the only input are called; none: they have no names."""

    model: str
    version: str
    inputs: tuple[Wanted, ...]
    outputs: tuple[Wanted, ...]
    axes: Mapping[str, Axis]
    batch: str | None
    columns: tuple[str, ...] = ()

    def input(self, name: object, where: str) -> Wanted:
        """Raises RequestRefused: the model has no such input."""
        for wanted in self.inputs:
            if wanted.name == name:
                return wanted
        raise RequestRefused(
            "PH-0476 the model has no such input", where=where, got=str(name)[:80], want=_names(self.inputs)
        )

    def check(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """The inputs in the model's order. Raises RequestRefused: the first that does not fit."""
        for name in inputs:
            self.input(name, "inputs")
        sizes: dict[str, int] = {}
        for wanted in self.inputs:
            if wanted.name not in inputs:
                raise RequestRefused("PH-0475 input is missing", where=wanted.name, want=_names(self.inputs))
            self._check_form(wanted, inputs[wanted.name], sizes)
            _check_values(wanted, inputs[wanted.name])
        return {wanted.name: inputs[wanted.name] for wanted in self.inputs}

    def _check_form(self, wanted: Wanted, array: Array, sizes: dict[str, int]) -> None:
        if (datatype := datatype_of(array)) is not wanted.datatype:
            raise RequestRefused("PH-0472 has another datatype", where=wanted.name, got=datatype, want=wanted.datatype)
        if array.ndim != len(wanted.shape):
            got, want = f"shape {list(array.shape)}", f"shape [{', '.join(map(str, wanted.shape))}]"
            raise RequestRefused("PH-0473 has another number of axes", where=wanted.name, got=got, want=want)
        for place, (size, declared) in enumerate(zip(array.shape, wanted.shape, strict=True)):
            where = f"{wanted.name}: axis {place}"
            if isinstance(declared, str):
                self._check_axis(declared, size, sizes, where)
            elif size != declared:
                raise RequestRefused("PH-0474 has another size", where=where, got=str(size), want=str(declared))

    def _check_axis(self, name: str, size: int, sizes: dict[str, int], where: str) -> None:
        axis = self.axes[name]
        if not axis.min <= size <= axis.max:
            want = f"{axis.min} to {axis.max}"
            raise RequestRefused("PH-0470 is outside of its axis", where=f"{where}, {name!r}", got=str(size), want=want)
        if sizes.setdefault(name, size) != size:
            what = "PH-0471 differs from the same axis of an input before"
            raise RequestRefused(what, where=f"{where}, {name!r}", got=str(size), want=str(sizes[name]))


def contract(spec: Spec, version: str, inputs: Mapping[str, Datatype], outputs: Mapping[str, Datatype]) -> Contract:
    """inputs, outputs: the datatypes of the session's. A graph drops an input that nothing depends on: then the spec
    says which datatype it has."""

    def wanted(tensor: Tensor, known: Mapping[str, Datatype]) -> Wanted:
        datatype = known.get(tensor.name) or BY_SPEC[tensor.dtype.value]
        bounds = tensor.range if isinstance(tensor, Input) else None
        return Wanted(tensor.name, datatype, tensor.shape, bounds)

    return Contract(
        model=spec.model.name,
        version=version,
        inputs=tuple(wanted(tensor, inputs) for tensor in spec.inputs),
        outputs=tuple(wanted(tensor, outputs) for tensor in spec.outputs),
        axes=spec.axes,
        batch=spec.batch,
        columns=_columns(spec) if len(spec.inputs) == 1 else (),
    )


def _columns(spec: Spec) -> tuple[str, ...]:
    """Of the first step that names them."""
    named = (step.columns for step in spec.preprocessing if isinstance(step, Standard | MinMax))
    return next((columns for columns in named if columns), ())


def _check_values(wanted: Wanted, array: Array) -> None:
    if wanted.datatype is Datatype.BYTES:
        return
    if wanted.datatype.floating and not np.isfinite(array).all():
        raise RequestRefused("PH-0477 holds NaN, infinity or what its datatype can not hold", where=wanted.name)
    if wanted.range and array.size:
        low, high = array.min(), array.max()
        if low < wanted.range[0] or high > wanted.range[1]:
            want = f"{wanted.range[0]:g} to {wanted.range[1]:g}"
            raise RequestRefused(
                "PH-0478 is outside of its range", where=wanted.name, got=f"{low:g} to {high:g}", want=want
            )


def _names(tensors: tuple[Wanted, ...]) -> str:
    return ", ".join(tensor.name for tensor in tensors)
