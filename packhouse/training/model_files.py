"""Writes a trained model's file, and reads off the model what its outputs are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from packhouse.architectures import exported_program
from packhouse.errors import SamplesInvalid, SpecInvalid, WeightsInvalid
from packhouse.formats.arrays import Array
from packhouse.spec.model import PROGRAM
from packhouse.spec.steps import Step
from packhouse.training.preprocessing import apply

if TYPE_CHECKING:
    import torch


WEIGHTS_FILE = "weights.safetensors"


PROGRAM_FILE = "model.pt2"


DEFAULT_BATCH = (1, 64)


def write_model(
    model: torch.nn.Module | torch.export.ExportedProgram, architecture: str, root: Path
) -> tuple[torch.nn.Module, str]:
    """Writes the weights, or the program; gives the module in eval mode, and the file's name."""
    import torch

    if isinstance(model, torch.export.ExportedProgram) is not (architecture == PROGRAM):
        want = f'architecture="{PROGRAM}" with a model of torch.export.export, and a module with any other'
        raise SpecInvalid(
            "PH-0267 model and architecture do not fit", where="stage", got=type(model).__name__, want=want
        )
    if isinstance(model, torch.export.ExportedProgram):
        exported_program.save(model, root / PROGRAM_FILE)
        module = exported_program.load(root / PROGRAM_FILE)
        check_device(module)
        return module, PROGRAM_FILE
    check_device(model)
    model.eval()
    _write_weights(model, root / WEIGHTS_FILE)
    return model, WEIGHTS_FILE


def _write_weights(model: torch.nn.Module, path: Path) -> None:
    """The state dict; of tied parameters, only the first name."""
    from packhouse.weights.safetensors_torch import write_torch

    first: dict[int, str] = {}
    tied = {
        name
        for name, parameter in model.named_parameters(remove_duplicate=False)
        if first.setdefault(id(parameter), name) != name
    }
    state = {key: tensor for key, tensor in model.state_dict().items() if key not in tied}
    if not state:
        raise WeightsInvalid("PH-0266 the model has no parameters", where="stage")
    write_torch(path, state)


def output_tensors(
    model: torch.nn.Module,
    samples: Mapping[str, Array],
    named: Mapping[str, Sequence[str | int]],
    names: Sequence[str],
    axes: Mapping[str, Sequence[str | int]],
    limits: Mapping[str, Mapping[str, Any]],
    steps: Sequence[Step],
) -> list[dict[str, Any]]:
    """dtype and shape of every output, read off the model: a size that changes with the number of rows is the batch.
    axes: what the caller says of them instead."""
    batch = {shape[0] for shape in named.values()}
    first = next(iter(batch))
    rows = isinstance(first, str) and len(batch) == 1
    sizes = _row_counts(limits[str(first)]) if rows else (0,)
    runs = [run(model, {key: _first(array, size) for key, array in samples.items()}, steps) for size in sizes]
    if len(runs[0]) != len(names):
        raise SpecInvalid(
            "PH-0265 the model has another number of outputs",
            where="outputs",
            got=str(len(runs[0])),
            want=str(list(names)),
        )
    return [
        {
            "name": name,
            "dtype": str(runs[0][number].dtype),
            "shape": _given(name, axes[name], runs[0][number])
            if name in axes
            else _shape([run[number] for run in runs], sizes, str(first), samples, named),
        }
        for number, name in enumerate(names)
    ]


def _row_counts(limits: Mapping[str, Any]) -> tuple[int, ...]:
    """Two numbers of rows that the model takes, 2 and 3 where it may; one where there is no other."""
    legal = list(limits.get("sizes") or ())
    if not legal:
        low, high = max(1, limits["min"]), limits["max"]
        legal = list(range(low, min(high, low + 2) + 1))
    legal = [size for size in legal if size > 1 or len(legal) < 3]
    return tuple(legal[:2]) or (1,)


def _given(name: str, shape: Sequence[str | int], answer: Array) -> list[str | int]:
    fits = len(shape) == answer.ndim and all(
        isinstance(size, str) or size == got for size, got in zip(shape, answer.shape, strict=False)
    )
    if not fits:
        raise SpecInvalid(
            "PH-0264 are not those of the answer", where=f"axes: {name}", got=str(answer.shape), want=str(shape)
        )
    return list(shape)


def _first(array: Array, size: int) -> Array:
    return np.take(array, range(size), axis=0, mode="wrap") if size else array[0]


def run(model: torch.nn.Module, inputs: dict[str, Array], steps: Sequence[Step]) -> list[Array]:
    from packhouse.formats.runtime import torch_runner

    try:
        inputs = apply(steps, inputs)
        return list(torch_runner(model, [])(inputs).values())
    except Exception as error:  # the model's own code: whatever it raises is about these samples
        given = ", ".join(f"{key} {array.dtype} {array.shape}" for key, array in inputs.items())
        raise SamplesInvalid(f"PH-0263 the model fails on them: {error}", where="inputs", got=given) from error


def check_device(model: torch.nn.Module) -> None:
    for name, tensor in model.state_dict().items():
        if tensor.device.type != "cpu":
            raise SpecInvalid(
                "PH-0262 the model is on another device",
                where=name,
                got=str(tensor.device),
                want="cpu: model.to('cpu')",
            )


def _shape(
    answers: list[Array],
    sizes: tuple[int, ...],
    batch: str,
    samples: Mapping[str, Array],
    named: Mapping[str, Sequence[str | int]],
) -> list[str | int]:
    """Sizes as the model gave them, but a name where the number of rows or another named axis of the samples shows."""
    dynamic = {
        int(array.shape[position]): axis
        for key, array in samples.items()
        for position, axis in enumerate(named[key])
        if isinstance(axis, str) and axis != batch
    }
    fixed = {size for shape in named.values() for size in shape if isinstance(size, int)}
    shape: list[str | int] = []
    for position, size in enumerate(answers[0].shape):
        changes = len(answers) > 1 and (size, answers[1].shape[position]) == sizes
        if changes or (len(answers) == 1 and position == 0 and (size,) == sizes):
            shape.append(batch)
        else:
            shape.append(dynamic[size] if size in dynamic and size not in fixed else size)
    return shape
