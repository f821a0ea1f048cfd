"""The onnxruntime that a spec names: both ONNX files are made for it, and held to it."""

from __future__ import annotations

import re
from pathlib import Path

import onnx
import pytest

from packhouse.errors import ExportFailed
from packhouse.spec.model import Format, Formats
from packhouse.spec.onnxruntimes import Onnx
from tasks.jobs import export_onnx
from tasks.jobs.onnx.target import read_by
from tests.tasks.jobs.int8.test_quantise import SMALL_BATCHES, Made, samples
from tests.tasks.jobs.test_evaluation import Job

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # torch's own, on tracing


def versions(path: Path) -> tuple[int, int]:
    model = onnx.load(path)
    return next(entry.version for entry in model.opset_import if entry.domain == ""), model.ir_version


@pytest.mark.parametrize(
    "formats, opset, ir, oldest",
    [
        ({}, 20, 10, "1.18"),
        ({"onnxruntime": "1.16"}, 19, 9, "1.16"),
        ({"onnxruntime": "1.17"}, 20, 9, "1.17"),
        ({"onnxruntime": "1.16", "opset": 17}, 17, 9, "1.16"),
    ],
    ids=["nobody asks", "1.16", "1.17", "1.16 at opset 17"],
)
def test_both_files_have_the_opset_and_the_ir_version_of_the_onnxruntime_that_the_spec_names(
    staged, tmp_path, formats, opset, ir, oldest
):
    made = Made(staged("linear", inputs={"x": samples()}, formats=formats, **SMALL_BATCHES), tmp_path / "made")
    want = Onnx(opset=opset, ir=ir, onnxruntime=oldest)
    assert made.facts["onnx"] == want.model_dump()
    for path in (made.base, made.out):
        assert versions(path) == (opset, ir)
        assert read_by(path, Formats(), where="onnx") == want
    assert made.judged() == ""


def test_a_model_that_branches_and_so_goes_by_way_of_script_is_made_for_it_too(staged, tmp_path):
    options = {"formats": {"onnxruntime": "1.16", "program": "off"}}
    Job(staged("branch", inputs={"x": samples()}, **options, **SMALL_BATCHES), tmp_path).export(
        export_onnx, Format.ONNX
    )
    assert versions(tmp_path / "model.onnx") == (19, 9)
    assert "If" in [node.op_type for node in onnx.load(tmp_path / "model.onnx").graph.node]


def graph(operator: str = "Relu", *, domain: str = "", opset: int = 19, ir: int = 9, ml: int = 0, **given: int):
    """A file with one node, inside a branch, where it is seen too."""
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    inner = helper.make_node(operator, ["x"], ["inner"], domain=domain, **given)
    branch = helper.make_graph([inner], "branch", [], [helper.make_tensor_value_info("inner", kind, None)])
    node = helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)
    inputs = [
        helper.make_tensor_value_info("x", kind, [2]),
        helper.make_tensor_value_info("c", onnx.TensorProto.BOOL, []),
    ]
    whole = helper.make_graph([node], "g", inputs, [helper.make_tensor_value_info("y", kind, None)])
    domains = {"": opset, "com.microsoft": 1} | ({"ai.onnx.ml": ml} if ml else {})
    imports = [helper.make_opsetid(name, version) for name, version in domains.items()]
    return helper.make_model(whole, opset_imports=imports, ir_version=ir)


FINISHED = {
    "a newer opset": (graph(opset=21), "has an opset that onnxruntime 1.16 does not read; got 21, want at most 19"),
    "a newer IR version": (graph(ir=10), "has an IR version that onnxruntime 1.16 does not read; got 10, want at most"),
    "newer classical operators": (graph(ml=4), "has an ai.onnx.ml that onnxruntime 1.16 does not read; got 4, want"),
    "weights in 4 bits": (
        graph("MatMulNBits", domain="com.microsoft", bits=4),
        "has an operator that onnxruntime 1.16 lacks; got MatMulNBits of 4 bits",
    ),
    "an operator of nobody knows when": (
        graph("Sparkle", domain="com.microsoft"),
        "has an operator that onnxruntime 1.16 lacks; got Sparkle",
    ),
    "an operator without a kernel there": (graph("DeformConv"), "lacks; got DeformConv of opset 19"),
}


@pytest.mark.parametrize("model, words", FINISHED.values(), ids=FINISHED)
def test_a_finished_file_that_the_named_onnxruntime_does_not_read_is_refused(tmp_path, model, words):
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(ExportFailed, match=re.escape(words)):
        read_by(tmp_path / "model.onnx", Formats(onnxruntime="1.16"), where="onnx")
    onnx.save(graph(), tmp_path / "model.onnx")
    assert read_by(tmp_path / "model.onnx", Formats(onnxruntime="1.16"), where="onnx").onnxruntime == "1.16"
