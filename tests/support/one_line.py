"""The jobs as plain functions, one after the other, on a model that no registry knows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w
import torch
from torch import nn

from packhouse.parity.preflight import Finding
from packhouse.spec.model import Format, Spec, parse
from packhouse.weights.safetensors_codec import write_numpy
from tasks.jobs import export_onnx, export_torchscript, judge, preflight, reference
from tasks.jobs import model as models
from tests.support import faulty

JOBS = {Format.ONNX: export_onnx, Format.TORCHSCRIPT: export_torchscript}

IMAGES, SEQUENCES, ROWS = ("batch", 1, 8, 8), ("batch", "time", 16), ("batch", 16)


def form(model: type[nn.Module]) -> tuple[str | int, ...]:
    """The shape of a faulty model's input, as its docstring says it."""
    if issubclass(model, faulty.Interpolated):
        return IMAGES
    return SEQUENCES if "(batch, time, 16)" in (model.__doc__ or "") else ROWS


def samples(shape: tuple[str | int, ...]) -> np.ndarray:
    sizes = [{"batch": 24, "time": 5}[size] if isinstance(size, str) else size for size in shape]
    return np.random.default_rng(0).normal(size=sizes).astype(np.float32)


def spec_of(shape: tuple[str | int, ...], outputs: tuple[tuple[str | int, ...], ...]) -> Spec:
    document = {
        "schema": 1,
        "model": {"name": "m"},
        "architecture": {"name": "a"},
        "axes": {"batch": {"max": 64}} | ({"time": {"max": 9}} if "time" in shape else {}),
        "inputs": [{"name": "x", "shape": list(shape)}],
        "outputs": [{"name": f"y{place}", "shape": list(output)} for place, output in enumerate(outputs)],
        "weights": {"file": "weights.safetensors", "sha256": "a" * 64, "size": 1},
        "samples": {"file": "samples.safetensors", "sha256": "a" * 64, "size": 1},
    }
    return parse(tomli_w.dumps(document).encode())


def found(model: type[nn.Module]) -> tuple[Finding, ...]:
    shape = form(model)
    findings, notes = preflight.look(built(model), spec_of(shape, (("batch", 4),)), {"evaluation.x": samples(shape)})
    assert notes == []
    return findings


def built(model: type[nn.Module]) -> nn.Module:
    """As the jobs load it: built, then its parameters are exchanged."""
    torch.manual_seed(0)
    module = model().eval()
    module.load_state_dict({name: tensor.clone() for name, tensor in module.state_dict().items()}, assign=True)
    return module.requires_grad_(False)


def answered(model: type[nn.Module], data: np.ndarray) -> tuple[int, ...]:
    """The shape of one row of the answer."""
    if model is faulty.OnlyOnCuda:
        return (4,)
    with torch.no_grad():
        return tuple(built(model)(torch.from_numpy(data.copy())).shape[1:])


class OneLine:
    """From a model to the judge's word about a format."""

    def __init__(self, model: type[nn.Module], work: Path, patch: pytest.MonkeyPatch) -> None:
        shape = form(model)
        data = samples(shape)
        spec = spec_of(shape, (("batch", *answered(model, data)),))
        patch.setattr(models, "read_spec", lambda _: spec)
        patch.setattr(models, "load", lambda *_: built(model))
        patch.setattr(judge, "parse", lambda _: spec)
        (work / "package.toml").touch()
        write_numpy(work / "samples", {f"{split}.x": data for split in ("calibration", "evaluation")})
        self.work = work
        self.given = {"spec": str(work / "package.toml"), "samples": str(work / "samples")}
        self.asked = {"cases": str(work / "cases"), "evaluation": str(work / "evaluation")}

    def refer(self) -> dict[str, Any]:
        return reference.run(**self.given, **self.asked, weights="")

    def export(self, format: Format) -> Path:
        out = self.work / format.file
        JOBS[format].run(**self.given, weights="", out=str(out))
        return out

    def refusal(self, format: Format, path: Path) -> str:
        return str(judge.run(**self.given, **self.asked, format=format.value, model=str(path))["refusal"])
