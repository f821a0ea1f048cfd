"""Before the upload: the trained model's own outputs, and whether its architecture, built here, gives them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from packhouse.architectures import registry
from packhouse.errors import ArchitectureUnknown, WeightsInvalid
from packhouse.formats.arrays import Array, Outputs
from packhouse.parity.judge import Case
from packhouse.parity.trained_outputs import answer, difference, refusal
from packhouse.spec.model import PROGRAM, Spec

if TYPE_CHECKING:
    import torch
from packhouse.training.model_files import run


def trained_outputs(
    model: torch.nn.Module, spec: Spec, samples: Mapping[str, Array]
) -> tuple[dict[str, Array], tuple[str, ...]]:
    """The trained model's answers, for a worker to compare with; none where it has none that could be."""

    def run(inputs: Mapping[str, Array]) -> Outputs:
        return _named_outputs(model, spec, inputs)

    first, second = answer(spec, samples, run), answer(spec, samples, run)
    for name, array in first.items():
        floating = np.issubdtype(array.dtype, np.inexact)
        if array.shape != second[name].shape or not np.array_equal(array, second[name], equal_nan=floating):
            return {}, (f"{name}: the model gave the same inputs two answers, and will be refused",)
        if floating and not np.all(np.isfinite(array)):
            return {}, (f"{name}: the model answers its own samples with NaN or infinity, and will be refused",)
    return first, ()


def _named_outputs(model: torch.nn.Module, spec: Spec, inputs: Mapping[str, Array]) -> Outputs:
    names = (output.name for output in spec.outputs)
    return dict(zip(names, run(model, dict(inputs), spec.preprocessing), strict=True))


def check_architecture(model: torch.nn.Module, spec: Spec, told: Sequence[Case]) -> tuple[str, ...]:
    """The registry, where it is installed here too, must build what was trained: the same tensors, the same answers."""
    name = spec.architecture.name
    if name == PROGRAM:
        return ()
    try:
        registry.find(name)
    except ArchitectureUnknown:
        return (f"architecture {name!r} is not registered here, so it was not compared with the model",)
    here, state = registry.build(name, spec.architecture.arguments), model.state_dict()
    built = {key: tuple(tensor.shape) for key, tensor in here.state_dict().items()}
    trained = {key: tuple(tensor.shape) for key, tensor in state.items()}
    if different := sorted(key for key in built.keys() | trained.keys() if built.get(key) != trained.get(key)):
        raise WeightsInvalid(
            f"PH-0261 architecture {name!r} with these arguments is not what was trained",
            where=different[0],
            got=str(trained.get(different[0], "nothing")),
            want=str(built.get(different[0], "nothing")),
        )
    here.load_state_dict(state)
    for case in told:
        answered = replace(case, expected=_named_outputs(here, spec, case.inputs))
        if words := difference(case, answered):
            raise refusal(name, words)
    return ()
