"""A branch by torch.cond: an `If` in ONNX, whose both sides are judged, and a reason where a format can not have it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from packhouse.errors import ExportFailed
from packhouse.spec.model import Format
from tests.support import faulty
from tests.support.one_line import OneLine

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # torch's own


class Conditional(faulty.Base):
    """x: float32, (batch, 16)."""

    def __init__(self) -> None:
        super().__init__()
        self.other = torch.nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cond(x.sum() > 0, lambda x: self.one(x), lambda x: self.other(x), (x,))


@pytest.fixture(scope="module")
def line(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        yield OneLine(Conditional, tmp_path_factory.mktemp("conditional"), patch)


@pytest.fixture(scope="module")
def exported(line) -> Path:
    line.refer()
    return line.export(Format.ONNX)


def test_both_sides_are_in_the_onnx_file_and_pass(line, exported):
    assert "If" in [node.op_type for node in onnx.load(exported).graph.node]
    assert line.refusal(Format.ONNX, exported) == ""


@pytest.mark.parametrize("side", ["one", "other"])
def test_a_fault_in_either_side_is_found(line, exported, tmp_path, side):
    model = onnx.load(exported)
    (weight,) = (tensor for tensor in model.graph.initializer if tensor.name == f"{side}.weight")
    weight.CopyFrom(numpy_helper.from_array(np.zeros_like(numpy_helper.to_array(weight)), weight.name))
    onnx.save(model, tmp_path / "model.onnx")
    assert "times the rounding of fp32" in line.refusal(Format.ONNX, tmp_path / "model.onnx")


def test_torchscript_can_not_have_it_and_says_why(line):
    with pytest.raises(ExportFailed, match=r"^torchscript: script: .*; trace: "):
        line.export(Format.TORCHSCRIPT)
