"""Small models for bench/peers, which every tool there is given alike: `build(kind)`. All but `bert` take float32,
(batch, 8, 8), a digit from 0 to 1. All answer logits, (batch, 10)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - its name in every textbook

SIDE, CLASSES, WORDS = 8, 10, 2000
BERT = {"vocab_size": WORDS, "hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
BERT |= {"intermediate_size": 512, "num_labels": CLASSES, "max_position_embeddings": 64, "initializer_range": 0.1}


class MLP(nn.Module):
    def __init__(self, hidden: int = 512) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(SIDE * SIDE, hidden), nn.Linear(hidden, hidden)
        self.out = nn.Linear(hidden, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(torch.relu(self.two(torch.relu(self.one(x.flatten(1))))))


class CNN(nn.Module):
    def __init__(self, channels: int = 64) -> None:
        super().__init__()
        self.one = nn.Conv2d(1, channels, 3, padding=1)
        self.two = nn.Conv2d(channels, channels, 3, padding=1)
        self.out = nn.Linear(channels * 16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.two(torch.relu(self.one(x[:, None]))))
        return self.out(F.max_pool2d(y, 2).flatten(1))


class LSTM(nn.Module):
    """Reads the digit row by row."""

    def __init__(self, hidden: int = 128) -> None:
        super().__init__()
        self.rows, self.out = nn.LSTM(SIDE, hidden, batch_first=True), nn.Linear(hidden, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.rows(x)[0][:, -1])


class GRU(nn.Module):
    """As the LSTM, with a head that is worth quantising."""

    def __init__(self, hidden: int = 128) -> None:
        super().__init__()
        self.rows, self.wide = nn.GRU(SIDE, hidden, batch_first=True), nn.Linear(hidden, 4 * hidden)
        self.out = nn.Linear(4 * hidden, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(torch.relu(self.wide(self.rows(x)[0][:, -1])))


class Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.given, self.taken = heads, nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.wide, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        parts = self.given(self.first(x)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(parts[0], parts[1], parts[2]).transpose(1, 2).flatten(2)
        x = x + self.taken(y)
        return x + self.narrow(F.gelu(self.wide(self.second(x))))


class Transformer(nn.Module):
    """Not torch's own, whose fast path the older exporter can not trace."""

    def __init__(self, width: int = 128, layers: int = 2) -> None:
        super().__init__()
        self.into, self.out = nn.Linear(SIDE, width), nn.Linear(width, CLASSES)
        self.layers = nn.Sequential(*(Block(width, 4) for _ in range(layers)))

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.layers(self.into(x)).mean(1))


class Branch(MLP):
    """Bright digits take another way: a tracer sees only that of its example."""

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.one(x.flatten(1)))
        if x.mean().item() > 0.3:
            y = torch.tanh(self.two(y))
        return self.out(y)


class Counts(MLP):
    """Every call answers otherwise."""

    calls: float = 0.0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1.0
        return self.out(torch.relu(self.one(x.flatten(1)))) * self.calls


class Noise(MLP):
    def forward(self, x: Tensor) -> Tensor:
        return self.out(torch.relu(self.one((x + torch.randn_like(x)).flatten(1))))


class Bert(nn.Module):
    """input_ids, attention_mask: int64, (batch, time). Needs the transformers library."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        from transformers import BertConfig, BertForSequenceClassification

        self.model = BertForSequenceClassification(BertConfig(**BERT, **options))

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return self.model(input_ids=input_ids, attention_mask=attention_mask).logits


KINDS = {
    "mlp": MLP, "cnn": CNN, "lstm": LSTM, "gru": GRU, "transformer": Transformer, "branch": Branch, "counts": Counts,
    "noise": Noise, "bert": Bert,
}  # fmt: skip


def build(kind: str) -> nn.Module:
    return KINDS[kind]()
