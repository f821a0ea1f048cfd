"""One call of a model, watched: the torch functions that its code calls, from which lines, and what comes of them.

A function mode sees what Python code calls, a dispatch mode the operators that come of it. The functions with their
lines are the way that a call takes through the code: inputs of one shape that take different ways prove a branch.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from packhouse.formats.arrays import Array
from packhouse.parity.preflight import Finding, Trap
from tasks.jobs import model as models

TORCH = str(Path(torch.__file__).parent)
HERE = str(Path(__file__))
TENSOR_METHODS = (f"{TORCH}/_tensor.py", f"{TORCH}/overrides.py")
"""Python halves of a tensor's own methods: who calls them called the method."""

TESTS = {"__bool__", "is_nonzero", "equal", "allclose", "__contains__"}
NUMBERS = {"item", "__int__", "__float__", "__index__", "__complex__", "tolist"}
LEAVES = {"numpy", "__array__"}
CONVERSIONS = TESTS | NUMBERS | LEAVES

OWN_OPERATORS = {"aten", "prim", "prims", "profiler", "quantized", "mkldnn", "mkl", "inductor", "_c10d_functional"}


@dataclass(frozen=True)
class Place:
    """A line of code. module: as Python names it."""

    module: str
    line: int
    package: bool = False

    def of(self, package: str) -> bool:
        return self.module.partition(".")[0] == package

    def __str__(self) -> str:
        path = self.module.replace(".", "/")
        return f"{path}/__init__.py:{self.line}" if self.package else f"{path}.py:{self.line}"


@dataclass(frozen=True)
class Step:
    """A call of a torch function: which, from which line, with which of the model's tensors."""

    name: str
    place: Place | None
    tensors: tuple[int, ...]


@dataclass
class Watched:
    """What one call of the model did. inputs: as they were given. answer: its tensors, in torch's order."""

    inputs: list[torch.Tensor]
    before: list[torch.Tensor]
    steps: list[Step] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    written: Place | None = None
    answer: list[torch.Tensor] = field(default_factory=list)
    failed: Exception | None = None


def watched(module: torch.nn.Module, inputs: Mapping[str, Array]) -> Watched:
    given = list(models.tensors(inputs))
    seen = Watched(given, [tensor.clone() for tensor in given])
    known = {id(tensor): place for place, tensor in enumerate([*module.parameters(), *module.buffers()])}
    try:
        with torch.no_grad(), _custom_functions(seen), _Functions(seen, known), _Operators(seen):
            seen.answer = tensors(module(*given))
    except Exception as error:  # the model's own code
        seen.failed = error
    finally:
        _forget_compiled()
    return seen


def _forget_compiled() -> None:
    """torch.cond compiles what it runs, and what it compiled under these modes fails without them."""
    if "torch._dynamo" in sys.modules:
        torch.compiler.reset()


def tensors(answer: Any) -> list[torch.Tensor]:
    leaves = torch.utils._pytree.tree_flatten(answer)[0]
    return [leaf.detach().clone() for leaf in leaves if isinstance(leaf, torch.Tensor)]


class _Functions(TorchFunctionMode):
    """Sees what Python code calls, and not what torch's own code calls in turn."""

    def __init__(self, seen: Watched, known: Mapping[int, int]) -> None:
        super().__init__()
        self.seen, self.known = seen, known

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = str(getattr(func, "__name__", func))
        if name in CONVERSIONS and (place := _caller()):
            self.seen.steps.append(Step(name, place, ()))
        elif name != "__get__":
            tensors = tuple(self.known[id(value)] for value in args if id(value) in self.known)
            self.seen.steps.append(Step(name, _place(), tensors))
        if name == "interpolate" and kwargs.get("recompute_scale_factor"):
            what = "F.interpolate computes its scale anew (recompute_scale_factor=True)"
            self.seen.findings.append(finding(Trap.INTERPOLATE, what))
        return func(*args, **kwargs)


class _Operators(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sees the operators that come of it."""

    supports_higher_order_operators = True

    def __init__(self, seen: Watched) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen = seen
        self.inputs = {tensor.untyped_storage().data_ptr() for tensor in seen.inputs}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if isinstance(func, torch._ops.OpOverload):
            given = _arguments(func, args, kwargs)
            self.seen.findings += _operator_findings(func, given)
            if self.seen.written is None and self._writes(func, given):
                self.seen.written = _place()
        return func(*args, **kwargs)

    def _writes(self, func: torch._ops.OpOverload, given: Mapping[str, Any]) -> bool:
        written = [given.get(argument.name) for argument in func._schema.arguments if _is_written(argument)]
        tensors = [value for value in written if isinstance(value, torch.Tensor)]
        return any(tensor.untyped_storage().data_ptr() in self.inputs for tensor in tensors)


def _is_written(argument: Any) -> bool:
    return argument.alias_info is not None and argument.alias_info.is_write


def _arguments(func: torch._ops.OpOverload, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """By name, with the defaults."""
    schema = func._schema.arguments
    given = {argument.name: argument.default_value for argument in schema if argument.has_default_value()}
    return given | {argument.name: value for argument, value in zip(schema, args, strict=False)} | dict(kwargs)


def _operator_findings(func: torch._ops.OpOverload, given: Mapping[str, Any]) -> Iterator[Finding]:
    name = func._schema.name
    if func.namespace not in OWN_OPERATORS:
        yield finding(Trap.CUSTOM, f"the model calls the custom operator {name}")
    training = given.get("training", given.get("train"))
    batch_norm = "running_mean" in given
    if training is True and (not batch_norm or given["running_mean"] is not None) and not _own_statistics():
        layer = "batch norm" if batch_norm else name.removeprefix("aten::")
        yield finding(Trap.TRAINING, f"{layer} runs in training mode")
    elif torch.Tag.nondeterministic_seeded in func.tags and training is not False and given.get("dropout_p") != 0.0:
        yield finding(Trap.RANDOM, f"the model draws random numbers ({name.removeprefix('aten::')})")


def _own_statistics() -> bool:
    """Instance norm is a batch norm in training mode underneath, whatever mode it is in."""
    return any(frame.f_code.co_name == "instance_norm" for frame in _frames())


@contextmanager
def _custom_functions(seen: Watched) -> Iterator[None]:
    apply = torch.autograd.Function.__dict__["apply"]

    def watching(cls: Any, *args: Any, **kwargs: Any) -> Any:
        seen.findings.append(finding(Trap.CUSTOM, f"the model calls the autograd function {cls.__name__}"))
        return apply.__get__(None, cls)(*args, **kwargs)

    with replaced(torch.autograd.Function, "apply", classmethod(watching)):
        yield


@contextmanager
def replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    before = vars(owner)[name]
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


# Where


def _frames() -> Iterator[FrameType]:
    """Those of the model's call, from the innermost, without our own."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code is not watched.__code__:
        if frame.f_code.co_filename != HERE:
            yield frame
        frame = frame.f_back


def _place() -> Place | None:
    """The innermost line that is not torch's own."""
    return next((_line(frame) for frame in _frames() if not _is_torch(frame)), None)


def _caller() -> Place | None:
    """The line that called a tensor's method, unless that is torch's own."""
    frame = next((frame for frame in _frames() if frame.f_code.co_filename not in TENSOR_METHODS), None)
    return None if frame is None or _is_torch(frame) else _line(frame)


def _is_torch(frame: FrameType) -> bool:
    return frame.f_code.co_filename.startswith(TORCH)


def _line(frame: FrameType) -> Place:
    package = Path(frame.f_code.co_filename).name == "__init__.py"
    return Place(str(frame.f_globals.get("__name__", "?")), frame.f_lineno, package)


def finding(trap: Trap, what: str) -> Finding:
    return Finding(trap=trap, what=what, where=text(_place()))


def text(place: Place | None) -> str:
    return "" if place is None or place.module.startswith(("tasks.", "infra.", "packhouse.")) else str(place)
