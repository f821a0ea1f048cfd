"""What torch's exporters need around them, whichever format they make."""

from __future__ import annotations

import torch

from packhouse.errors import without_paths


def forget_rnn_dispatch() -> None:
    """torch 2.13 swaps the kernels of LSTM and GRU for an export without clearing their dispatch cache, so that an
    export after any other run of the layer fixes the sequence length."""
    for operator in (torch.ops.aten.lstm.input, torch.ops.aten.gru.input):
        operator._dispatch_cache.clear()


def brief(error: Exception) -> str:
    """The same without paths: a verdict is digested, and files lie elsewhere on every machine."""
    return without_paths(first_line(error))


def first_line(error: Exception) -> str:
    """The error's class and the first line of the innermost cause: exporters wrap the finding in pages of advice."""
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    text = next((line.strip() for line in str(cause).splitlines() if line.strip()), "")
    return f"{type(cause).__name__}: {text}"[:300]
