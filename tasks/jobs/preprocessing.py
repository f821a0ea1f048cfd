"""The steps of `[[preprocessing]]` as a module in front of the model, so that every format takes raw features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, assert_never

import torch

from packhouse.spec.model import Spec
from packhouse.spec.steps import Concatenate, MinMax, OneHot, Standard, Step, Vocabulary


class Prepared(torch.nn.Module):
    """The model behind the spec's steps. Takes the spec's inputs by position, text as codes."""

    def __init__(self, model: torch.nn.Module, spec: Spec) -> None:
        super().__init__()
        self.model = model
        self.names = [tensor.name for tensor in spec.inputs]
        self.steps = torch.nn.ModuleList(module(step) for step in spec.preprocessing)
        self.read = [step.inputs if isinstance(step, Concatenate) else (step.input,) for step in spec.preprocessing]

    def forward(self, *inputs: torch.Tensor) -> Any:
        values = dict(zip(self.names, inputs, strict=True))
        for step, names in zip(self.steps, self.read, strict=True):
            values[names[0]] = step(*(values[name] for name in names))
            for name in names[1:]:
                del values[name]
        return self.model(*values.values())


def module(step: Step) -> torch.nn.Module:
    match step:
        case Standard():
            return Standardised(step)
        case MinMax():
            return Scaled(step)
        case OneHot():
            return Hot(step)
        case Vocabulary():
            return LookedUp(step)
        case Concatenate():
            return Joined()
    assert_never(step)


class Standardised(torch.nn.Module):
    mean: torch.Tensor
    scale: torch.Tensor

    def __init__(self, step: Standard) -> None:
        super().__init__()
        self.register_buffer("mean", _float32(step.mean))
        self.register_buffer("scale", _float32(step.scale))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x - self.mean) / self.scale


class Scaled(torch.nn.Module):
    """The minimum is taken off first, and not a product later: columns of large values keep their digits."""

    low: torch.Tensor
    factor: torch.Tensor

    def __init__(self, step: MinMax) -> None:
        super().__init__()
        self.register_buffer("low", _float32(step.data_min))
        self.register_buffer("factor", _float32(step.factors))
        self.ends, self.clip = step.feature_range, step.clip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scaled = (x - self.low) * self.factor + self.ends[0]
        return scaled.clamp(*self.ends) if self.clip else scaled


class Hot(torch.nn.Module):
    """one: its dtype is the model's, in the float64 run too."""

    categories: torch.Tensor
    one: torch.Tensor

    def __init__(self, step: OneHot) -> None:
        super().__init__()
        self.register_buffer("categories", torch.tensor(step.codes, dtype=torch.int64))
        self.register_buffer("one", torch.ones(()))

    def forward(self, codes: torch.Tensor) -> torch.Tensor:
        equal = codes.to(torch.int64).unsqueeze(-1) == self.categories
        return equal.to(self.one.dtype).flatten(-2)


class LookedUp(torch.nn.Module):
    table: torch.Tensor

    def __init__(self, step: Vocabulary) -> None:
        super().__init__()
        self.register_buffer("table", torch.tensor(step.table, dtype=torch.int64))
        self.first, self.last = step.first, step.first + len(step.table) - 1

    def forward(self, codes: torch.Tensor) -> torch.Tensor:
        return self.table[codes.to(torch.int64).clamp(self.first, self.last) - self.first]


class Joined(torch.nn.Module):
    def forward(self, *parts: torch.Tensor) -> torch.Tensor:
        return torch.cat(parts, dim=-1)


def _float32(values: Sequence[float]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float32)
