"""The torch.export program (.pt2): loads without the model's class, and is what torch itself moves to."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from torch.export._patches import register_lstm_while_loop_decomposition

from packhouse.architectures import exported_program
from packhouse.errors import ExportFailed
from packhouse.spec.model import Spec
from tasks.jobs import model as models
from tasks.jobs.exporters import first_line, forget_rnn_dispatch


def run(*, spec: str, weights: str, samples: str, out: str, program: str = "") -> dict[str, Any]:
    """Writes a canonical .pt2 to `out`: no stack traces, no example inputs, no pickle. Returns {"notes"}.

    Raises ExportFailed: torch.export can not take the model, or the archive would carry a pickle.
    """
    parsed = models.read_spec(spec)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if program and not parsed.preprocessing:
            exported = torch.export.load(program)  # as it was staged: an export of an export is another graph
        else:
            exported = _exported(parsed, models.load(parsed, weights, program), samples)
        exported_program.save(exported, Path(out))
    return {"notes": []}


def _exported(spec: Spec, module: torch.nn.Module, samples: str) -> torch.export.ExportedProgram:
    example = models.tensors(models.example(spec, samples))
    dynamic: Any = models.dynamic_axes(spec, lambda name, axis: torch.export.Dim.DYNAMIC(min=axis.min, max=axis.max))
    forget_rnn_dispatch()
    try:
        with register_lstm_while_loop_decomposition():
            return torch.export.export(module, example, dynamic_shapes=models.as_forward_takes(module, dynamic))
    except Exception as error:  # exporters' errors have no common class
        raise ExportFailed(first_line(error), where="program") from error
