"""TorchScript: script first, which keeps branches and loops; a trace where script can not."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch

from packhouse.architectures import exported_program
from packhouse.errors import ExportFailed
from packhouse.formats.torch_archive import canonical
from tasks.jobs import model as models
from tasks.jobs.exporters import first_line
from tasks.jobs.preprocessing import Prepared


def run(*, spec: str, weights: str, samples: str, out: str, program: str = "") -> dict[str, Any]:
    """Writes a canonical TorchScript archive to `out`. Returns {"method": "script" | "trace", "notes"}."""
    parsed = models.read_spec(spec)
    module = models.load(parsed, weights, program)
    if program:
        exported_program.unchecked(module)
    return save(module, models.tensors(models.example(parsed, samples)), Path(out))


def save(module: torch.nn.Module, example: tuple[torch.Tensor, ...], out: Path) -> dict[str, Any]:
    """Raises ExportFailed: neither script nor trace works."""
    notes: list[str] = []
    raw = out.with_suffix(".raw")
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        try:
            method, compiled = "script", script(module, example)
            torch.jit.save(compiled, str(raw))
        except Exception as error:  # script's errors have no common class; a trace is the other way
            notes.append(f"script: {first_line(error)}")
            method, compiled = "trace", _trace(module, example, notes)
            torch.jit.save(compiled, str(raw))
    canonical(raw, out)
    raw.unlink()
    return {"method": method, "notes": notes}


def script(module: torch.nn.Module, example: tuple[torch.Tensor, ...]) -> torch.jit.ScriptModule:
    """Preprocessing takes any number of inputs, which script has no way to say: it is traced around the scripted
    model, whose branches stay branches."""
    if isinstance(module, Prepared):
        module.model = torch.jit.script(module.model)
        return torch.jit.trace(module, example, check_trace=False)  # type: ignore[no-any-return,no-untyped-call]
    return torch.jit.script(module)


def _trace(module: torch.nn.Module, example: tuple[torch.Tensor, ...], notes: list[str]) -> torch.jit.ScriptModule:
    try:
        return torch.jit.trace(module, example, check_trace=False, strict=False)  # type: ignore[no-any-return,no-untyped-call]
    except Exception as error:  # exporters' errors have no common class
        raise ExportFailed(f"PH-0547 {notes[0]}; trace: {first_line(error)}", where="torchscript") from error
