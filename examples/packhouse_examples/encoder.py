"""A BERT encoder of the transformers library. Needs `pip install transformers`."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import BertConfig, BertModel


class Encoder(nn.Module):
    """input_ids, attention_mask: int64, (batch, time). Returns the hidden states, float32, (batch, time, hidden)."""

    def __init__(self, **config: Any) -> None:
        super().__init__()
        self.bert = BertModel(BertConfig(**config), add_pooling_layer=False)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        return self.bert(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state


def encoder(**config: Any) -> Encoder:
    """config: keyword arguments of transformers.BertConfig."""
    return Encoder(**config)
