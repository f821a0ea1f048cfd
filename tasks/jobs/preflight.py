"""Preflight: runs the trained model a few times on small inputs, watched, and names the traps in its code.

A model without conversions from tensor to Python is run twice: once, and once with every dynamic axis at another size.
One with conversions is run on other values of the same shape, to find inputs that take different ways.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from packhouse.architectures import registry
from packhouse.errors import ArchitectureUnknown
from packhouse.formats.arrays import Array
from packhouse.parity.preflight import Finding, Severity, Trap, distinct
from packhouse.parity.probes import LARGE
from packhouse.spec.model import Spec
from tasks.jobs.exporters import first_line
from tasks.jobs.preprocessing import Prepared
from tasks.jobs.state import State, equal
from tasks.jobs.watched import CONVERSIONS, LEAVES, TESTS, TORCH, Place, Step, Watched, replaced, tensors, text, watched

MOST_WAYS = 4
"""Other rows of the samples that are tried where the model converts tensors, beside zeros, large and negated ones."""


def look(module: torch.nn.Module, spec: Spec, samples: Mapping[str, Array]) -> tuple[tuple[Finding, ...], list[str]]:
    """The traps, and notes where preflight could not look. The module is left as it was. samples: checked already."""
    state = State(module)
    notes: list[str] = []
    try:
        return distinct(_found(module, spec, samples, state, notes)), notes
    finally:
        state.restore()


def _found(
    module: torch.nn.Module, spec: Spec, samples: Mapping[str, Array], state: State, notes: list[str]
) -> Iterator[Finding]:
    rows = [_rows(spec, samples, start) for start in range(1 + MOST_WAYS)]
    first = watched(module, rows[0])
    yield from first.findings
    if first.failed:  # under modes that it may not know; the reference runs it without them, and says whether it fails
        notes.append(f"preflight could not look: {first_line(first.failed)}")
        return
    yield from _training(module)
    yield from _changed(module, rows, first, state)
    yield from _written(module, first)
    own = _package(spec, module)
    if places := _unguarded(module, rows[0], first, own):
        yield from _conversions(places, first, [watched(module, inputs) for inputs in _others(rows)])
    else:
        yield from _loops(first, watched(module, _resized(spec, rows[0])), own)


# Inputs


def _rows(spec: Spec, samples: Mapping[str, Array], start: int) -> dict[str, Array]:
    """Two samples where the batch allows, since exporters bake a 1; from another one on for every start."""
    rows = {tensor.name: samples[f"evaluation.{tensor.name}"] for tensor in spec.inputs}
    if spec.batch is None:
        return {name: array[start % len(array)] for name, array in rows.items()}
    size = _size(spec, spec.batch, 2)
    return {name: np.take(array, (start * size + np.arange(size)) % len(array), axis=0) for name, array in rows.items()}


def _size(spec: Spec, axis: str, wanted: int) -> int:
    return min(max(wanted, spec.axes[axis].min), spec.axes[axis].max)


def _others(rows: Sequence[Mapping[str, Array]]) -> Iterator[Mapping[str, Array]]:
    """Inputs of the first one's shapes that may take another way."""
    yield from rows[1:]
    for factor in (0.0, -1.0, LARGE):
        yield {name: _scaled(array, factor) for name, array in rows[0].items()}


def _scaled(array: Array, factor: float) -> Array:
    return np.multiply(array, factor, dtype=array.dtype) if array.dtype.kind == "f" else array


def _resized(spec: Spec, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """Every dynamic axis one longer, or one shorter at its end."""
    resized = dict(inputs)
    for tensor in spec.inputs:
        for position, axis in enumerate(tensor.shape):
            if isinstance(axis, str):
                array = resized[tensor.name]
                now = array.shape[position]
                size = now + 1 if now < spec.axes[axis].max else max(now - 1, spec.axes[axis].min)
                resized[tensor.name] = np.take(array, np.arange(size) % now, axis=position)
    return resized


# Judging what was seen


def _package(spec: Spec, module: torch.nn.Module) -> str:
    """The one that registers the architecture; its class may come from a library."""
    try:
        return registry.find(spec.architecture.name).module.partition(".")[0]
    except ArchitectureUnknown:
        return type(_inner(module)).__module__.partition(".")[0]


def _inner(module: torch.nn.Module) -> torch.nn.Module:
    return module.model if isinstance(module, Prepared) else module


def _same(some: Sequence[torch.Tensor], others: Sequence[torch.Tensor]) -> bool:
    return len(some) == len(others) and all(map(equal, some, others))


def _written(module: torch.nn.Module, first: Watched) -> Iterator[Finding]:
    """Refused where a caller who asks again with the same tensor gets another answer: TorchScript writes to it too,
    ONNX can not."""
    if _same(first.inputs, first.before):
        return
    with torch.no_grad():
        harmless = _same(tensors(module(*first.inputs)), first.answer)
    what, where = "the model writes to its inputs", text(first.written)
    proof = "it answers otherwise when asked again with them"
    yield _proven(Finding(trap=Trap.INPUT, what=what, where=where), "" if harmless else proof)


def _proven(finding: Finding, proof: str) -> Finding:
    return finding.model_copy(update={"proof": proof, "severity": Severity.REFUSED}) if proof else finding


def _changed(
    module: torch.nn.Module, rows: Sequence[Mapping[str, Array]], first: Watched, state: State
) -> Iterator[Finding]:
    """Refused where the answer to the same input differs after others came between."""
    names = state.changed()
    if not names:
        return
    state.restore()
    for inputs in _others(rows):
        watched(module, inputs)
    harmless = _same(watched(module, rows[0]).answer, first.answer)
    state.restore()
    if harmless and any(finding.trap is Trap.TRAINING for finding in first.findings):
        return  # running statistics that nobody reads: named already
    what, where = f"forward changes the model's own {', '.join(names[:3])}", _defined(module, names[0])
    proof = "its answers depend on the calls before"
    yield _proven(Finding(trap=Trap.STATE, what=what, where=where), "" if harmless else proof)


def _defined(module: torch.nn.Module, name: str) -> str:
    """Where the forward of the layer that owns the name begins; of the model's, where the layer is torch's."""
    for layer in (module.get_submodule(name.rpartition(".")[0]), _inner(module)):
        forward: Any = type(layer).forward
        code = getattr(forward, "__code__", None)
        if code is not None and not code.co_filename.startswith(TORCH):
            return text(Place(forward.__module__, code.co_firstlineno, Path(code.co_filename).name == "__init__.py"))
    return ""


def _training(module: torch.nn.Module) -> Iterator[Finding]:
    names = [name for name, layer in module.named_modules() if layer.training]
    if names:
        what = f"layers are left in training mode: {', '.join(name or 'the model itself' for name in names[:3])}"
        yield Finding(trap=Trap.TRAINING, what=what, where=_defined(module, f"{names[0]}." if names[0] else ""))


def _unguarded(module: torch.nn.Module, inputs: Mapping[str, Array], first: Watched, own: str) -> set[Place]:
    """The conversions of the model's own package; and of a library's, those that it makes also where it is told that
    it is being traced."""
    found = {step.place for step in first.steps if step.place and step.name in CONVERSIONS}
    foreign = {place for place in found if not place.of(own)}
    if not foreign:
        return found
    with replaced(torch.jit, "is_tracing", lambda: True):
        traced = watched(module, inputs)
    return found - foreign | {step.place for step in traced.steps if step.place in foreign}


def _conversions(places: set[Place], first: Watched, others: Sequence[Watched]) -> Iterator[Finding]:
    parted = {place for other in others if not other.failed for place in _parting(first, other)}
    for step in first.steps:
        if step.place not in places or step.name not in CONVERSIONS:
            continue
        if step.place in parted or step.name in TESTS:
            proof = "two probes take different sides" if step.place in parted else "no probe takes the other side"
            yield Finding(trap=Trap.BRANCH, what="the model branches on data", where=text(step.place), proof=proof)
        else:
            into = "numpy" if step.name in LEAVES else "a Python value"
            what = f"the model turns a tensor into {into} ({step.name.strip('_')})"
            yield Finding(trap=Trap.CONVERSION, what=what, where=text(step.place))


def _parting(some: Watched, others: Watched) -> Iterator[Place]:
    """The conversion after which two calls took different ways, where they did."""
    at = _first_difference(some.steps, others.steps)
    if at is not None:
        before = [step.place for step in some.steps[:at] if step.name in CONVERSIONS and step.place]
        yield from before[-1:]


def _loops(first: Watched, resized: Watched, own: str) -> Iterator[Finding]:
    """Only of the model's own code: libraries are known to size their work by the inputs."""
    some, others = ([step for step in seen.steps if step.place and step.place.of(own)] for seen in (first, resized))
    at = None if resized.failed else _first_difference(some, others)
    if at is not None:
        here = [steps[at] for steps in (some, others) if at < len(steps)]
        again = {step.place for step in some[:at]}  # the line that one of them runs once more
        step = next((step for step in here if step.place in again), here[0])
        what = "the model takes other steps for another size of a dynamic axis"
        yield Finding(trap=Trap.LOOP, what=what, where=text(step.place))


def _first_difference(some: Sequence[Step], others: Sequence[Step]) -> int | None:
    pairs = zip(some, others, strict=False)
    at = next((place for place, (one, other) in enumerate(pairs) if one != other), min(len(some), len(others)))
    return None if at == len(some) == len(others) else at
