"""Well and badly behaved models. x: float32, (batch, 16), unless said otherwise."""

from __future__ import annotations

import ctypes
import time
from typing import Any

import torch
from torch import nn

FEATURES = 16


class Linear(nn.Module):
    """As small as a model gets: (batch, 4)."""

    def __init__(self, hidden: int = 32) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(FEATURES, hidden), nn.Tanh(), nn.Linear(hidden, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


class Words(nn.Module):
    """words: int64, (batch, time), less than 8; x: float32, (batch, 3). Gives (batch, 4)."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(8, FEATURES - 3), nn.Linear(FEATURES, 4)

    def forward(self, words: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.cat([self.table(words).mean(1), x], dim=1))


class Branch(nn.Module):
    """Takes another way where the sum is negative: script keeps that, a trace freezes it."""

    def __init__(self) -> None:
        super().__init__()
        self.above, self.below = nn.Linear(FEATURES, 4), nn.Linear(FEATURES, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.sum().item() > 0.0:
            return self.above(x)
        return torch.tanh(self.below(x))


class FrozenBranch(Branch):
    """The same, and script can not read it, so that only a trace is left."""

    def forward(self, x: torch.Tensor, **unknown: Any) -> torch.Tensor:
        way = "above" if bool(x.sum() > 0.0) else "below"
        return getattr(self, way)(x)


class LateBranch(nn.Module):
    """Rows with a feature of 7 go another way. Script can not read it, and a trace of other rows freezes it."""

    def __init__(self) -> None:
        super().__init__()
        self.usual, self.rare = nn.Linear(FEATURES, 4), nn.Linear(FEATURES, 4)

    def forward(self, x: torch.Tensor, **unknown: Any) -> torch.Tensor:
        rare = (x == 7).any(1, keepdim=True)
        return torch.where(rare, self.rare(x), self.usual(x)) if bool(rare.any()) else self.usual(x)


class Stairs(nn.Module):
    """Features in bins. Where one lies on an edge, fp32 and float64 go different ways."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("into", 0.1 * torch.eye(FEATURES)[:, :4])
        self.out = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(torch.floor(x @ self.into * 3.0) / 3.0)


class Total(Linear):
    """Beside (batch, 4) one number for the whole batch."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:  # type: ignore[override]
        y = self.layers(x)
        return y, y.sum()


class Convolutional(nn.Module):
    """Two convolutions with a residual between them, over (4, 4): (batch, 4)."""

    def __init__(self, channels: int = 96) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(1, channels, 3, padding=1), nn.BatchNorm2d(channels)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        self.pool, self.out = nn.MaxPool2d(2), nn.Linear(4 * channels, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first = torch.relu(self.norm(self.first(x.reshape(-1, 1, 4, 4))))
        second = torch.relu(self.second(first) + first)
        return self.out(self.pool(second).flatten(1))


class Recurrent(nn.Module):
    """An LSTM over four steps of four features: (batch, 4)."""

    def __init__(self) -> None:
        super().__init__()
        self.steps, self.out = nn.LSTM(4, 64, batch_first=True, bidirectional=True), nn.Linear(128, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.steps(x.reshape(-1, 4, 4))[0][:, -1])


class Outlier(nn.Module):
    """The middle one of five layers reads one feature a hundred thousand times larger than the others, which leaves
    them no bits: (batch, 4)."""

    def __init__(self) -> None:
        super().__init__()
        self.before = nn.Sequential(nn.Linear(FEATURES, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh())
        self.middle = nn.Linear(64, 64)
        self.after = nn.Sequential(nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 4))
        large = torch.ones(64)
        large[0] = 1e5
        self.register_buffer("large", large)
        with torch.no_grad():
            self.middle.weight[:, 0] /= 1e5

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.after(self.middle(self.before(x) * self.large))


class TwoOutputs(nn.Module):
    """Two outputs of the same form: (batch, 4) each."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(FEATURES, 4), nn.Linear(FEATURES, 4)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.one(x), self.two(x)


class DictOutput(TwoOutputs):
    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:  # type: ignore[override]
        return {"one": self.one(x), "two": self.two(x)}


class Tied(nn.Module):
    """The way in and the way out share their matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.encode = nn.Linear(FEATURES, FEATURES, bias=False)
        self.decode = nn.Linear(FEATURES, FEATURES, bias=False)
        self.decode.weight = self.encode.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.decode(torch.tanh(self.encode(x)))


class Random(Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x) + torch.rand(1)


class NotANumber(Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.log(self.layers(x) - 1e6)


class LateNotANumber(Linear):
    """On rows with a feature of 7."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x) + torch.where((x == 7).any(1, keepdim=True), torch.nan, 0.0)


class Unbatched(nn.Module):
    """x: float32, (16,). Returns (4,) and a boolean (4,)."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(FEATURES, 4)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        answer = self.layer(x)
        return answer, answer > 0.0


class CrashesWhenTraced(Linear):
    """A native fault in somebody's custom operator. Script can not read the signature, so a trace is tried."""

    def forward(self, x: torch.Tensor, **unknown: Any) -> torch.Tensor:
        if torch.jit.is_tracing():
            ctypes.string_at(0)
        return self.layers(x)


class HangsWhenTraced(Linear):
    def forward(self, x: torch.Tensor, **unknown: Any) -> torch.Tensor:
        if torch.jit.is_tracing():
            time.sleep(3600)
        return self.layers(x)
