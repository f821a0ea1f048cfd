"""The torch.export program (.pt2): loads without the model's class, and is what torch itself moves to."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from torch.export._patches import register_lstm_while_loop_decomposition

from packhouse.errors import ExportFailed
from packhouse.runtime import refuse_pickles
from tasks.jobs import model as models
from tasks.jobs.exporters import first_line, forget_rnn_dispatch
from tasks.jobs.torch_archive import canonical


def run(*, spec: str, weights: str, samples: str, out: str) -> dict[str, Any]:
    """Writes a canonical .pt2 to `out`: no stack traces, no example inputs, no pickle. Returns {"notes"}.

    Raises ExportFailed: torch.export can not take the model, or the archive would carry a pickle.
    """
    parsed = models.read_spec(spec)
    module = models.load(parsed, weights)
    example = models.tensors(models.example(parsed, samples))
    dynamic: Any = models.dynamic_axes(parsed, lambda name, axis: torch.export.Dim.DYNAMIC(min=axis.min, max=axis.max))
    forget_rnn_dispatch()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with register_lstm_while_loop_decomposition():
                program = torch.export.export(
                    module,
                    example,
                    dynamic_shapes=models.as_forward_takes(module, dynamic),
                )
        except Exception as error:  # exporters' errors have no common class
            raise ExportFailed(first_line(error), where="program") from error
        anonymous(program)
        raw = Path(out).with_suffix(".raw.pt2")
        torch.export.save(program, str(raw))
    canonical(raw, Path(out))
    raw.unlink()
    refuse_pickles(Path(out))
    return {"notes": []}


def anonymous(program: torch.export.ExportedProgram) -> None:
    """Takes out, in place, the stack traces with their local paths and the example inputs, which are real samples."""
    for submodule in program.graph_module.modules():
        if isinstance(submodule, torch.fx.GraphModule):
            for node in submodule.graph.nodes:
                for key in ("stack_trace", "nn_module_stack", "source_fn_stack", "from_node"):
                    node.meta.pop(key, None)
    program._example_inputs = None
