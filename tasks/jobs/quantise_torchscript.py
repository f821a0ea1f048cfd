"""INT8 by PyTorch's own dynamic quantisation, saved as TorchScript, while torch still has it."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch

from packhouse.errors import ExportFailed
from tasks.jobs import model as models
from tasks.jobs.export_torchscript import save

LAYERS = (torch.nn.Linear, torch.nn.LSTM, torch.nn.GRU)


def run(*, spec: str, weights: str, samples: str, out: str, program: str = "") -> dict[str, Any]:
    """Writes the quantised model to `out`. Returns as export_torchscript, and the number of quantised layers.

    Raises ExportFailed: no layer that dynamic quantisation takes, or this torch no longer has it.
    """
    parsed = models.read_spec(spec)
    module = models.load(parsed, weights, program)
    layers = sum(isinstance(layer, LAYERS) for layer in module.modules())
    if not layers:
        raise ExportFailed("PH-0572 has no Linear, LSTM or GRU layer to quantise", where="torchscript-int8")
    quantize_dynamic = getattr(torch.ao.quantization, "quantize_dynamic", None)
    if quantize_dynamic is None:
        raise ExportFailed(f"PH-0573 torch {torch.__version__} has no dynamic quantisation", where="torchscript-int8")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantised = quantize_dynamic(module, set(LAYERS), dtype=torch.qint8, inplace=True)
    return {"layers": layers, **save(quantised, models.tensors(models.example(parsed, samples)), Path(out))}
