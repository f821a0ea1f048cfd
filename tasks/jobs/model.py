"""The trained model as a module: built from the registry, filled from the gated weights."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from packhouse.architectures import exported_program, registry
from packhouse.formats.arrays import Array
from packhouse.formats.runtime import as_tensor
from packhouse.parity.probes import probes, read_samples
from packhouse.spec.model import Axis, Spec, parse
from packhouse.weights.safetensors_torch import dtype_name, read_torch
from tasks.jobs.preprocessing import Prepared


def read_spec(path: str) -> Spec:
    return parse(Path(path).read_bytes())


def skeleton(spec: Spec) -> torch.nn.Module:
    """The module without memory for its parameters; buffers are real, since constructors compute some of them."""
    with _parameters_on_meta():
        return registry.build(spec.architecture.name, spec.architecture.arguments)


def expected_tensors(module: torch.nn.Module) -> dict[str, dict[str, Any]]:
    """The state dict as {name: {dtype, shape}}, dtypes as safetensors names them."""
    return {
        name: {"dtype": dtype_name(tensor.dtype), "shape": list(tensor.shape)}
        for name, tensor in module.state_dict().items()
    }


def aliases(module: torch.nn.Module) -> dict[str, str]:
    """Tied parameters: every further name of a parameter -> its first name."""
    first: dict[int, str] = {}
    tied = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        if id(parameter) in first:
            tied[name] = first[id(parameter)]
        else:
            first[id(parameter)] = name
    return tied


def load(spec: Spec, weights: str, program: str = "") -> torch.nn.Module:
    """The trained model in eval mode, preprocessing included, its parameters mapped from the gated file: no copy.

    weights: the gate's canonical weights.safetensors, so names, shapes and dtypes are known to fit. program: the gate's
    .pt2, where the architecture is one.
    """
    module = exported_program.load(Path(program)) if program else skeleton(spec)
    tensors = read_torch(Path(weights))
    ties = aliases(module)
    tensors |= {name: tensors[target] for name, target in ties.items() if target in tensors}
    module.load_state_dict(tensors, assign=True)
    for name, target in ties.items():
        owner, _, leaf = name.rpartition(".")
        setattr(module.get_submodule(owner), leaf, module.get_parameter(target))
    module.requires_grad_(False)
    return Prepared(module, spec).eval() if spec.preprocessing else module


def example(spec: Spec, samples: str) -> dict[str, Array]:
    """One real set of inputs to trace and export with: two rows where the batch allows, since exporters bake a 1."""
    every = {probe.name: probe.inputs for probe in probes(spec, read_samples(Path(samples))) if probe.real}
    return dict(every.get(f"{spec.batch} 2") or next(iter(every.values())))


def tensors(inputs: Mapping[str, Array]) -> tuple[torch.Tensor, ...]:
    return tuple(as_tensor(array) for array in inputs.values())


def dynamic_axes(spec: Spec, dimension: Callable[[str, Axis], Any]) -> tuple[dict[int, Any], ...]:
    """For every input: position -> what `dimension(name, axis)` makes of the axis that may change there."""
    return tuple(
        {
            position: dimension(axis, spec.axes[axis])
            for position, axis in enumerate(tensor.shape)
            if isinstance(axis, str) and spec.axes[axis].min != spec.axes[axis].max
        }
        for tensor in spec.inputs
    )


def as_forward_takes(module: torch.nn.Module, each: tuple[Any, ...]) -> tuple[Any, ...]:
    """One for every input, in the form of forward's own arguments: what goes into its `*inputs` is one of it."""
    kinds = [parameter.kind for parameter in inspect.signature(module.forward).parameters.values()]
    if inspect.Parameter.VAR_POSITIONAL not in kinds:
        return each
    before = kinds.index(inspect.Parameter.VAR_POSITIONAL)
    return (*each[:before], each[before:])


@contextmanager
def _parameters_on_meta() -> Iterator[None]:
    """Parameters lose their memory as soon as they are registered, so that a constructor's initialisation of a
    large model costs nothing. A parameter that is registered twice stays one (tied)."""
    register = torch.nn.Module.register_parameter

    def on_meta(self: torch.nn.Module, name: str, parameter: torch.nn.Parameter | None) -> None:
        if parameter is not None and not parameter.is_meta and type(parameter) is torch.nn.Parameter:
            parameter = torch.nn.Parameter(parameter.to("meta"), requires_grad=parameter.requires_grad)
        register(self, name, parameter)

    torch.nn.Module.register_parameter = on_meta  # type: ignore[method-assign,assignment]
    try:
        yield
    finally:
        torch.nn.Module.register_parameter = register  # type: ignore[method-assign]
