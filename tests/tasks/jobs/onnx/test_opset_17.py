"""Opset 17: the exporter of torch writes 18, what can be said in 17 is, and what can not is refused with a reason."""

from __future__ import annotations

import re

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import helper, numpy_helper
from torch import nn

from packhouse.errors import ExportFailed
from packhouse.spec.model import Format, Formats
from tasks.jobs import export_onnx
from tasks.jobs import model as models
from tasks.jobs.onnx.opset import to_opset_17
from tests.support import one_line

pytestmark = pytest.mark.filterwarnings("ignore")  # torch's own, on tracing


class Mlp(nn.Module):
    """x float32, (batch, 16)."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(16, 8), nn.LayerNorm(8), nn.GELU(), nn.Linear(8, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


class Gated(nn.Module):
    """Splits, reduces and pads. x float32, (batch, 16)."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.out = nn.Linear(16, 16), nn.Linear(10, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a, b = self.linear(x).chunk(2, -1)
        gated = a * torch.sigmoid(b)
        scaled = gated / gated.abs().amax(-1, keepdim=True) - gated.mean(-1, keepdim=True)
        return self.out(nn.functional.pad(scaled, (1, 1))) / gated.norm(dim=-1, keepdim=True)


class Convolutions(nn.Module):
    """x float32, (batch, time, 16)."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv1d(16, 8, 3, padding=1), nn.BatchNorm1d(8), nn.ReLU(), nn.GroupNorm(2, 8))
        self.out = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.layers(x.transpose(1, 2)).mean(-1))


class Recurrent(nn.Module):
    """x float32, (batch, time, 16)."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.out = nn.LSTM(16, 8, batch_first=True), nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.lstm(x)[0][:, -1])


class Transformer(nn.Module):
    """x float32, (batch, time, 16)."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.out = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True), nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.layer(x).mean(1))


class Halves(nn.Module):
    """The size that it splits changes, so that only script can say it in 17. x float32, (batch, time, 16)."""

    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(torch.cat([x, x], 1).unflatten(1, (2, -1)).sum(1).sum(1))


class Bits(nn.Module):
    """x float32, (batch, 16). Neither way has the operator in 17."""

    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(x) + torch.bitwise_and(x.long(), 3).sum(-1, keepdim=True)


@pytest.fixture
def line(tmp_path, monkeypatch):
    """The jobs on a model whose spec asks for opset 17."""

    def made(model: type[nn.Module]) -> one_line.OneLine:
        found = one_line.OneLine(model, tmp_path, monkeypatch)
        spec = models.read_spec("")
        asked = spec.model_copy(update={"formats": Formats(opset=17)})
        monkeypatch.setattr(models, "read_spec", lambda _: asked)
        return found

    return made


@pytest.mark.parametrize("model", [Mlp, Gated, Convolutions, Recurrent, Transformer, Halves])
def test_a_model_is_written_at_opset_17_and_computes_the_same(line, model):
    made = line(model)
    made.refer()
    path = made.export(Format.ONNX)
    (version,) = [entry.version for entry in onnx.load(path).opset_import if entry.domain == ""]
    assert version == 17
    assert made.refusal(Format.ONNX, path) == ""


def test_a_model_that_opset_17_can_not_say_is_refused_with_the_reason(line):
    made = line(Bits)
    made.refer()
    with pytest.raises(ExportFailed) as caught:
        export_onnx.run(**made.given, weights="", out=str(made.work / "model.onnx"))
    assert "torch.export: opset 17 does not have the operator BitwiseAnd; script: " in str(caught.value)
    assert str(caught.value).endswith("; ask for opset 18 or later (PH-0546)")


def graph(kind: str, inputs: dict[str, np.ndarray | None], outputs: int = 1, **attributes: object) -> onnx.ModelProto:
    """One node. inputs: name -> the constant, None for an input of the graph: float, (n, 6)."""
    names = [f"y{number}" for number in range(outputs)]
    node = helper.make_node(kind, [*inputs], names, **attributes)
    constants = [numpy_helper.from_array(value, name) for name, value in inputs.items() if value is not None]
    given = [
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", 6])
        for name, value in inputs.items()
        if name and value is None
    ]
    answers = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["a", "b"]) for name in names]
    made = helper.make_graph([node], "g", given, answers, constants)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


ONE, ROI = np.array([1], np.int64), np.array([], np.float32)
PADS = np.array([0, 1, 0, 1], np.int64)
SAME = {
    "mean over an axis": (graph("ReduceMean", {"x": None, "a": ONE}, keepdims=1), 1),
    "maximum over all": (graph("ReduceMax", {"x": None}, keepdims=1), 1),
    "two halves": (graph("Split", {"x": None}, 2, axis=1, num_outputs=2), 2),
    "named parts": (graph("Split", {"x": None, "s": np.array([2, 4], np.int64)}, 2, axis=1), 2),
    "padding": (graph("Pad", {"x": None, "p": PADS}), 1),
    "resizing": (graph("Resize", {"x": None, "": None, "f": np.array([1, 2], np.float32)}, antialias=0), 1),
}


@pytest.mark.parametrize("model, outputs", SAME.values(), ids=SAME)
def test_a_node_in_opset_17_computes_what_it_did_in_18(model, outputs):
    x = np.random.default_rng(0).normal(size=(3, 6)).astype(np.float32)
    before = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": x})
    lowered = to_opset_17(onnx.ModelProto.FromString(model.SerializeToString()))
    onnx.checker.check_model(lowered, full_check=True)
    assert lowered.opset_import[0].version == 17
    after = onnxruntime.InferenceSession(lowered.SerializeToString()).run(None, {"x": x})
    assert len(after) == outputs
    for one, other in zip(before, after, strict=True):
        np.testing.assert_array_equal(one, other)


NOT_IN_17 = {
    "axes that are computed": (graph("ReduceSumSquare", {"x": None, "a": None}), "ReduceSumSquare over axes that are"),
    "no axes": (graph("ReduceMean", {"x": None}, noop_with_empty_axes=1), "ReduceMean over no axes"),
    "parts of another size": (graph("Split", {"x": None}, 4, axis=1, num_outputs=4), "Split of 6 into 4"),
    "parts of a changing axis": (
        graph("Split", {"x": None}, 2, axis=0, num_outputs=2),
        "Split of a changing size into 2",
    ),
    "padding of some axes": (graph("Pad", {"x": None, "p": ONE, "": None, "a": ONE}), "Pad of some axes alone"),
    "antialiasing": (graph("Resize", {"x": None, "": None, "f": None}, antialias=1), "Resize with antialias"),
    "resizing of some axes": (graph("Resize", {"x": None, "": None, "f": None}, axes=[1]), "Resize of some axes alone"),
    "the largest of what is scattered": (graph("ScatterND", {"x": None, "i": None}, reduction="max"), "ScatterND that"),
    "a new operator": (graph("Mish", {"x": None}), "the operator Mish"),
}


@pytest.mark.parametrize("model, words", NOT_IN_17.values(), ids=NOT_IN_17)
def test_what_opset_17_can_not_say_is_named(model, words):
    with pytest.raises(ExportFailed, match=re.escape(f"onnx: opset 17 does not have {words}")):
        to_opset_17(model)


def test_what_stands_in_a_branch_is_written_at_opset_17_too():
    inner = helper.make_node("ReduceMax", ["x", "axes"], ["z"], keepdims=0)
    axes = helper.make_node("Constant", [], ["axes"], value=numpy_helper.from_array(ONE))
    branch = helper.make_graph([axes, inner], "b", [], [helper.make_tensor_value_info("z", 1, None)])
    model = graph("If", {"x": None}, then_branch=branch, else_branch=branch)
    to_opset_17(model)
    for attribute in model.graph.node[0].attribute:
        assert [*attribute.g.node[1].input] == ["x"]
        assert helper.get_attribute_value(attribute.g.node[1].attribute[1]) == [1]
