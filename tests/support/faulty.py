"""Models with one trap each, and twins without one. x: float32, (batch, 16) to (batch, 4), unless said otherwise. A
comment at the end of a line says which trap preflight has to name there."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - as everybody calls it
from torch import Tensor, nn

FEATURES = 16


class Base(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(FEATURES, 4), nn.Linear(FEATURES, 4)


# Named by preflight


class BranchOnItem(Base):
    def forward(self, x: Tensor) -> Tensor:
        if x.sum().item() > 0.0:  # trap: branch
            return self.one(x)
        return torch.tanh(self.two(x))


class BranchOnTensor(Base):
    def forward(self, x: Tensor) -> Tensor:
        if (x.mean() > 0).all():  # trap: branch
            return self.one(x)
        return self.two(x)


class BranchOfEqualLines(Base):
    """Both sides are one line and the same operators: only the weights differ."""

    def forward(self, x: Tensor) -> Tensor:
        way = "one" if float(x.sum()) > 0.0 else "two"  # trap: branch
        return getattr(self, way)(x)


class LoopUntilSmall(Base):
    def forward(self, x: Tensor) -> Tensor:
        while x.abs().max() > 1.0:  # trap: branch
            x = x * 0.5
        return self.one(x)


class RareBranch(Base):
    """A side that none of the samples takes."""

    def forward(self, x: Tensor) -> Tensor:
        if torch.sigmoid(self.one(x).mean()).item() > 2.0:  # trap: conversion
            return self.two(x)
        return self.one(x)


class GuardedBySample(Base):
    def forward(self, x: Tensor) -> Tensor:
        if torch.equal(x[0], x[1]):  # trap: branch
            return self.two(x)
        return self.one(x)


class ScaledByItem(Base):
    def forward(self, x: Tensor) -> Tensor:
        return self.one(x) * x.abs().max().item()  # trap: conversion


class ScaledByFloat(Base):
    def forward(self, x: Tensor) -> Tensor:
        return self.one(x) * float(x.std())  # trap: conversion


class SizedByInt(Base):
    def forward(self, x: Tensor) -> Tensor:
        count = int(x.abs().sum()) % 3 + 1  # trap: conversion
        return self.one(x) + torch.ones(count).sum()


class ToList(Base):
    def forward(self, x: Tensor) -> Tensor:
        return self.one(x) + torch.tensor(x[0].tolist()).mean()  # trap: conversion


class NumpyInside(Base):
    def forward(self, x: Tensor) -> Tensor:
        return self.one(x) + torch.from_numpy(np.tanh(x.mean(1, keepdim=True).numpy()))  # trap: conversion


class AsArrayInside(Base):
    def forward(self, x: Tensor) -> Tensor:
        scale = np.asarray(x).max()  # trap: conversion
        return self.one(x) * torch.tensor(scale)


class LoopOverBatch(Base):
    def forward(self, x: Tensor) -> Tensor:
        y = self.one(x)
        for row in range(x.shape[0]):
            y = y + 0.1 * self.two(x[row])  # trap: loop
        return y


class LoopOverTime(nn.Module):
    """x: float32, (batch, time, 16)."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.head = nn.GRUCell(FEATURES, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        state = x.new_zeros(x.shape[0], 8)
        for step in x.unbind(1):
            state = self.cell(step, state)  # trap: loop
        return self.head(state)


class Interpolated(nn.Module):
    """image: float32, (batch, 1, 8, 8) to (batch, 1, 12, 12)."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(1, 1, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        y = self.layer(image)
        return F.interpolate(y, scale_factor=1.5, recompute_scale_factor=True)  # trap: interpolate


class CustomOperator(Base):
    def forward(self, x: Tensor) -> Tensor:
        return torch.ops.packhouse_faulty.softclip(self.one(x))  # trap: custom operator


class AutogradFunction(Base):
    def forward(self, x: Tensor) -> Tensor:
        return Swish.apply(self.one(x))  # trap: custom operator


class Swish(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, x: Tensor) -> Tensor:
        return x * torch.sigmoid(x)


@torch.library.custom_op("packhouse_faulty::softclip", mutates_args=())
def softclip(x: Tensor) -> Tensor:
    return x / (1.0 + x.abs())


softclip.register_fake(torch.empty_like)


class OnlyOnCuda(Base):
    """An operator without a kernel for the CPU. Only the reference can say that it fails."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.ops.packhouse_faulty.only_on_cuda(self.one(x))


torch.library.define("packhouse_faulty::only_on_cuda", "(Tensor x) -> Tensor")
torch.library.impl("packhouse_faulty::only_on_cuda", "cuda", torch.clone)


class ClampsItsInput(Base):
    """The same answer when asked again: harmless to the answers."""

    def forward(self, x: Tensor) -> Tensor:
        x.clamp_(-2.0, 2.0)  # trap: input
        return self.one(x)


class LeavesItsState(Base):
    """The last answer is kept, and never read."""

    last: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:  # trap: state
        self.last = self.one(x)
        return self.last


class BatchNormInTraining(Base):
    """Its running statistics go stale, and the answer to a row hangs on the batch that it is in."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(FEATURES)

    def forward(self, x: Tensor) -> Tensor:
        n = self.norm
        x = F.batch_norm(x, n.running_mean, n.running_var, n.weight, n.bias, training=True)  # trap: training
        return self.one(x)


class LayerLeftInTraining(Base):
    """Dropout of nothing, so that the answers are the same."""

    def __init__(self) -> None:
        super().__init__()
        self.drop = nn.Dropout(0.0)

    def forward(self, x: Tensor) -> Tensor:  # trap: training
        self.drop.train()
        return self.one(x) + 0.0 * self.drop(x).sum()


class SeededNoise(Base):
    """Deterministic here, and another sequence in every other runtime."""

    def forward(self, x: Tensor) -> Tensor:
        noise = torch.rand(4, generator=torch.Generator().manual_seed(0))  # trap: random
        return self.one(x) + noise


# Refused before any format is judged


class Dropout(Base):
    def forward(self, x: Tensor) -> Tensor:
        return self.one(F.dropout(x, 0.5))  # trap: random


class Noise(Base):
    def forward(self, x: Tensor) -> Tensor:
        return self.one(x + torch.randn_like(x))  # trap: random


class Counter(Base):
    calls = 0

    def forward(self, x: Tensor) -> Tensor:  # trap: state
        self.calls = self.calls + 1
        return self.one(x) * self.calls


class CountsInABuffer(Base):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:  # trap: state
        self.calls += 1
        return self.one(x) * self.calls


class LargestSoFar(Base):
    """The same answer to the same input twice; another one after a larger input came between."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("most", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:  # trap: state
        self.most = torch.maximum(self.most, x.abs().max())
        return self.one(x) / self.most


class FirstCallDecides(Base):
    scale: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:  # trap: state
        if self.scale is None:
            self.scale = x.std()
        return self.one(x) / self.scale


class AddsToItsInput(Base):
    def forward(self, x: Tensor) -> Tensor:
        x += 1.0  # trap: input
        return self.one(x)


class WritesAColumn(Base):
    def forward(self, x: Tensor) -> Tensor:
        x[:, 0] = x.sum(1)  # trap: input
        return self.one(x)


class NotANumber(Base):
    def forward(self, x: Tensor) -> Tensor:
        return torch.log(self.one(x) - 1e6)


# Twins that do it right


class Plain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(FEATURES, 32), nn.Tanh(), nn.Linear(32, 4))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class Where(Base):
    """A branch as torch means it."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.where(x.sum() > 0.0, self.one(x), torch.tanh(self.two(x)))


class ScaledByTensor(Base):
    def forward(self, x: Tensor) -> Tensor:
        return self.one(x) * x.abs().max()


class Copies(Base):
    """In place on its own tensor."""

    def forward(self, x: Tensor) -> Tensor:
        y = x.clone()
        y.clamp_(-2.0, 2.0)
        y += 1.0
        return self.one(y)


class Normalised(Base):
    """Every layer that knows a training mode, in eval mode."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.drop = nn.BatchNorm1d(FEATURES), nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.instance_norm(self.norm(x)[None])[0]
        return self.one(F.dropout(self.drop(x), 0.5, training=self.training))


class Recurrent(nn.Module):
    """x: float32, (batch, time, 16)."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(FEATURES, 8, batch_first=True), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(x)[0][:, -1])


class Attention(nn.Module):
    """x: float32, (batch, time, 16)."""

    def __init__(self) -> None:
        super().__init__()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            layer = nn.TransformerEncoderLayer(FEATURES, 2, 32, batch_first=True)
            self.layers, self.head = nn.TransformerEncoder(layer, 2), nn.Linear(FEATURES, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layers(x).mean(1))


class Upsampled(Interpolated):
    def forward(self, image: Tensor) -> Tensor:
        return F.interpolate(self.layer(image), size=(12, 12))


class ChecksItsShape(Base):
    """Python on sizes that are fixed."""

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1] != FEATURES:
            raise ValueError("another number of features")
        return self.one(x).reshape(x.shape[0], -1)
