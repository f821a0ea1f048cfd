"""Planted faults: whatever is wrong with a format is refused in its own words, and healthy twins are not.

Here the jobs are called as functions, on small models; tests/flows/test_release.py has faults of the whole line.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from packhouse.errors import ParityRefused, SpecInvalid
from packhouse.parity.preflight import FROZEN_BY_A_TRACE, Finding, explained
from packhouse.spec.model import Format
from tasks.jobs import export_torchscript
from tests.support import faulty
from tests.support.doctored import (
    DOUBLE,
    INT,
    Change,
    after,
    before,
    declared,
    initializers,
    operator,
    renamed,
    weights,
)
from tests.support.doctored import one_output_more as more
from tests.support.one_line import OneLine
from tests.tasks.jobs.test_preflight import HEALTHY, REFUSED, marks

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # torch's own

F32, I64 = np.float32, np.int64
ROUNDING = "times the rounding of fp32"


class Batched(faulty.Base):
    """x: float32, (batch, time, 16): one answer a step, so that a fixed length shows."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.one(x))


@pytest.fixture(scope="module")
def lines(tmp_path_factory):
    """The trained model's answers and a good ONNX file, made once a model."""
    made: dict[type[nn.Module], tuple[OneLine, Path]] = {}
    with pytest.MonkeyPatch.context() as patch:

        def line(model: type[nn.Module]) -> tuple[OneLine, Path]:
            if model not in made:
                one = OneLine(model, tmp_path_factory.mktemp(model.__name__), patch)
                one.refer()
                made[model] = one, one.export(Format.ONNX)
            return made[model]

        yield line


# A graph that is not the model

PLAIN = {
    "a layer's weights are zero": (weights(np.zeros_like), ROUNDING),
    "a layer's bias is left out": (initializers(np.zeros_like, lambda array: array.shape == (4,)), ROUNDING),
    "one weight is off by a thousandth of its size": (weights(lambda w: _off_at_largest(w)), ROUNDING),
    "all weights are off in the fifth digit": (weights(lambda w: w * F32(1 + 2e-5)), ROUNDING),
    "weights went through fp16": (weights(lambda w: w.astype(np.float16)), ROUNDING),
    "weights went through bfloat16": (weights(lambda w: (w.view(np.uint32) & 0xFFFF0000).view(F32)), ROUNDING),
    "a weight matrix has two rows swapped": (weights(lambda w: np.concatenate([w[1:2], w[:1], w[2:]])), ROUNDING),
    "the activation is another": (operator("Tanh", "Sigmoid"), ROUNDING),
    "the activation is left out": (operator("Tanh", "Identity"), ROUNDING),
    "a softmax too many": (after(("Softmax", ["y"], {"axis": 1})), ROUNDING),
    "the sign is turned": (after(("Neg", ["y"])), ROUNDING),
    "answers are rounded to three decimals": (
        after(("Mul", ["y", "k"]), ("Round", ["a"]), ("Div", ["b", "k"]), k=F32(1000)), ROUNDING,
    ),
    "answers went through fp16": (after(("Cast", ["y"], {"to": 10}), ("Cast", ["a"], {"to": 1})), ROUNDING),
    "answers are a little too large": (after(("Mul", ["y", "k"]), k=F32(1.00001)), ROUNDING),
    "an answer that is baked": (after(("Mul", ["y", "zero"]), ("Add", ["a", "k"]), zero=F32(0), k=F32(0.3)), ROUNDING),
    "classes in another order": (after(("Gather", ["y", "k"], {"axis": 1}), k=np.array([1, 0, 2, 3], I64)), ROUNDING),
    "rows in another order": (
        after(("Slice", ["y", "s", "e", "z", "s"]), s=np.array([-1]), e=np.array([-99]), z=np.array([0])),
        ROUNDING,
    ),
    "the first row for all": (
        after(("Mul", ["y", "zero"]), ("Gather", ["y", "k"], {"axis": 0}), ("Add", ["a", "b"]), zero=F32(0),
              k=np.array([0], I64)),
        ROUNDING,
    ),
    "a row hangs on its batch": (
        after(("ReduceMean", ["y", "k"]), ("Mul", ["a", "small"]), ("Add", ["y", "b"]), k=np.array([0], I64),
              small=F32(1e-3)),
        ROUNDING,
    ),
    "transposed": (after(("Transpose", ["y"], {"perm": [1, 0]})), "has shape (4, 1), the model gives (1, 4)"),
    "flattened": (after(("Reshape", ["y", "k"]), k=np.array([-1], I64)), "has shape (4,), the model gives (1, 4)"),
    "one axis more": (after(("Unsqueeze", ["y", "k"]), k=np.array([2], I64)), "has shape (1, 4, 1)"),
    "one class less": (
        after(("Slice", ["y", "s", "e", "e1"]), s=np.array([0], I64), e=np.array([3], I64), e1=np.array([1], I64)),
        "has shape (1, 3), the model gives (1, 4)",
    ),
    "the best class instead of scores": (declared(INT, after(("ArgMax", ["y"], {"axis": 1}))), "is int64"),
    "double": (declared(DOUBLE, after(("Cast", ["y"], {"to": DOUBLE}))), "is float64, the model gives float32"),
    "another name": (renamed, "outputs are 'another', the model has"),
    "an output too many": (more, "'more', the model has"),
    "NaN where values are large": (
        after(("Abs", ["x"]), ("ReduceMax", ["a", "k"], {"keepdims": 1}), ("Greater", ["b", "limit"]),
              ("Where", ["c", "nan", "y"]), k=np.array([1], I64), limit=F32(50), nan=F32(np.nan)),
        "NaN or infinite",
    ),
    "infinity where values are large": (
        after(("Abs", ["x"]), ("ReduceMax", ["a", "k"], {"keepdims": 1}), ("Greater", ["b", "limit"]),
              ("Where", ["c", "inf", "y"]), k=np.array([1], I64), limit=F32(50), inf=F32(np.inf)),
        "NaN or infinite",
    ),
    "off only at zero": (
        after(("Abs", ["x"]), ("ReduceMax", ["a", "k"], {"keepdims": 1}), ("Equal", ["b", "zero"]),
              ("Cast", ["c"], {"to": 1}), ("Add", ["y", "d"]), k=np.array([1], I64), zero=F32(0)),
        "case 'zeros'",
    ),
    "off only from the fifth row on": (
        after(("Slice", ["y", "four", "end", "zero"]), ("Mul", ["a", "two"]), ("Slice", ["y", "zero", "four", "zero"]),
              ("Concat", ["c", "b"], {"axis": 0}), four=np.array([4], I64), end=np.array([999], I64),
              zero=np.array([0], I64), two=F32(1.01)),
        ROUNDING,
    ),
    "inputs are clipped": (before("Clip", "x", "low", "high", low=F32(-9), high=F32(9)), "case 'large'"),
    "negative inputs are lost": (before("Relu", "x"), ROUNDING),
    "inputs went through an offset": (before("Add", "x", "k", k=F32(1e-4)), ROUNDING),
}  # fmt: skip


def _off_at_largest(array: np.ndarray) -> np.ndarray:
    array.reshape(-1)[np.abs(array).argmax()] *= 1.001
    return array


def spoiled(path: Path, change: Change, to: Path) -> Path:
    model = onnx.load(path)
    change(model.graph)
    to.write_bytes(model.SerializeToString())
    return to


@pytest.mark.parametrize("change, reason", PLAIN.values(), ids=PLAIN)
def test_a_graph_that_is_not_the_model_is_refused(lines, tmp_path, change, reason):
    line, path = lines(faulty.Plain)
    assert line.refusal(Format.ONNX, path) == ""
    assert reason in line.refusal(Format.ONNX, spoiled(path, change, tmp_path / "model.onnx"))


FIXED = {
    "a batch of 2": (np.array([2, -1, 4], I64), "case 'batch 1'"),
    "a length of 5": (np.array([-1, 5, 4], I64), "case 'time 1'"),
}


@pytest.mark.parametrize("shape, reason", FIXED.values(), ids=FIXED)
def test_a_size_that_is_baked_is_refused(lines, tmp_path, shape, reason):
    line, path = lines(Batched)
    baked = after(("Reshape", ["y", "shape"]), shape=shape)
    refusal = line.refusal(Format.ONNX, spoiled(path, baked, tmp_path / "model.onnx"))
    assert refusal.startswith(reason), refusal


BROKEN = {
    "empty": b"",
    "not ONNX at all": b"\x00\x01\x02 nothing of the kind",
    "another kind": b"PK\x03\x04" + b"\x00" * 60,
}


@pytest.mark.parametrize("data", BROKEN.values(), ids=BROKEN)
def test_a_file_that_does_not_load_is_refused(lines, tmp_path, data):
    line, _ = lines(faulty.Plain)
    (tmp_path / "model.onnx").write_bytes(data)
    assert line.refusal(Format.ONNX, tmp_path / "model.onnx").startswith("does not load: ")


def test_a_file_that_is_cut_off_is_refused(lines, tmp_path):
    line, path = lines(faulty.Plain)
    (tmp_path / "model.onnx").write_bytes(path.read_bytes()[:-100])
    assert line.refusal(Format.ONNX, tmp_path / "model.onnx").startswith("does not load: ")


# A trace that froze what Python decided

FROZEN = [
    faulty.BranchOnItem, faulty.BranchOnTensor, faulty.BranchOfEqualLines, faulty.LoopUntilSmall, faulty.ScaledByItem,
    faulty.ScaledByFloat, faulty.SizedByInt, faulty.ToList, faulty.NumpyInside, faulty.AsArrayInside,
    faulty.LoopOverBatch, faulty.LoopOverTime,
]  # fmt: skip


@pytest.mark.parametrize("model", FROZEN, ids=[model.__name__ for model in FROZEN])
def test_a_trace_that_froze_something_is_refused_with_the_line_that_it_froze(tmp_path, monkeypatch, model):
    monkeypatch.setattr(export_torchscript, "script", _no_script)
    line = OneLine(model, tmp_path, monkeypatch)
    findings = [Finding.model_validate(document) for document in line.refer()["findings"]]
    refusal = line.refusal(Format.TORCHSCRIPT, line.export(Format.TORCHSCRIPT))
    reason = explained(refusal, findings, FROZEN_BY_A_TRACE)
    assert refusal
    assert "\n" not in reason
    assert reason.endswith(f" at {next(iter(marks(model)))}")


def _no_script(*_: object) -> None:
    raise RuntimeError("script is switched off")


SCRIPTED = [faulty.BranchOnItem, faulty.LoopUntilSmall, faulty.ScaledByItem, faulty.LoopOverBatch, faulty.LoopOverTime]


@pytest.mark.parametrize("model", SCRIPTED, ids=[model.__name__ for model in SCRIPTED])
def test_the_same_model_goes_to_script_and_passes(tmp_path, monkeypatch, model):
    line = OneLine(model, tmp_path, monkeypatch)
    line.refer()
    assert line.refusal(Format.TORCHSCRIPT, line.export(Format.TORCHSCRIPT)) == ""


# A model that no format can be faithful to

HOPELESS = dict.fromkeys(
    sorted(REFUSED, key=lambda model: model.__name__),
    "depend on the calls before|asked again with them|not deterministic",
)
HOPELESS |= {faulty.Dropout: "not deterministic", faulty.Noise: "not deterministic"}
HOPELESS |= {faulty.NotANumber: "NaN or infinity"}


@pytest.mark.parametrize("model, reason", HOPELESS.items(), ids=[model.__name__ for model in HOPELESS])
def test_a_model_that_can_not_be_released_is_refused_once_with_the_line(tmp_path, monkeypatch, model, reason):
    line = OneLine(model, tmp_path, monkeypatch)
    with pytest.raises(ParityRefused) as refused:
        line.refer()
    assert len(re.findall(reason, str(refused.value))) == 1
    assert all(where in str(refused.value) for where in marks(model))


def test_a_model_whose_operator_has_no_kernel_for_the_cpu_is_refused_with_the_line(tmp_path, monkeypatch):
    line = OneLine(faulty.OnlyOnCuda, tmp_path, monkeypatch)
    told = r"the model fails on 'batch 1'.*only_on_cuda at tests/support/faulty\.py:\d+"
    with pytest.raises(SpecInvalid, match=told):
        line.refer()


# Twins


@pytest.mark.parametrize("model", HEALTHY, ids=[model.__name__ for model in HEALTHY])
def test_a_healthy_model_passes_in_both_formats(tmp_path, monkeypatch, model):
    line = OneLine(model, tmp_path, monkeypatch)
    assert line.refer()["findings"] == []
    for format in (Format.ONNX, Format.TORCHSCRIPT):
        assert line.refusal(format, line.export(format)) == "", format


def test_the_list_of_planted_faults_is_long_enough():
    assert len(PLAIN) + len(FIXED) + len(BROKEN) + len(FROZEN) + len(HOPELESS) >= 60
