"""ONNX files in two: what they hold is what the same file in one holds, and the same weights give the same bytes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from packhouse.digest import digest_file
from packhouse.errors import ExportFailed
from packhouse.formats.runtime import open_format
from packhouse.spec.model import Format
from tasks.jobs.onnx.file import ALIGNMENT, DATA_DIGEST, Payload, write
from tasks.jobs.onnx.graph import Draft, array, read

RANDOM = np.random.default_rng(0)
WEIGHTS = {name: RANDOM.normal(size=(64, 64)).astype(np.float32) for name in ("w.b", "w.a", "w.c")}


def model() -> onnx.ModelProto:
    names = ["x", "one", "two", "y"]
    nodes = [
        helper.make_node("MatMul", [given, weight], [made])
        for given, weight, made in zip(names, sorted(WEIGHTS), names[1:], strict=False)
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 64]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def payloads() -> list[Payload]:
    return [Payload(name, TensorProto.FLOAT, w.shape, w.tobytes, w.nbytes) for name, w in WEIGHTS.items()]


@pytest.fixture
def two(tmp_path) -> Path:
    path = tmp_path / "two" / "model.onnx"
    path.parent.mkdir()
    write(path, model(), payloads(), most=10_000)
    return path


def test_two_files_are_read_by_onnx_by_its_runtime_and_by_us_as_the_one_is(tmp_path, two):
    one = tmp_path / "model.onnx"
    write(one, model(), payloads())
    assert [path.name for path in sorted(two.parent.iterdir())] == ["model.onnx", "model.onnx.data"]
    assert not (tmp_path / "model.onnx.data").exists()
    onnx.checker.check_model(str(two), full_check=True)
    loaded = {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(two).graph.initializer}
    ours = {name: array(payload) for name, payload in read(two).large.items()}
    for name, weight in WEIGHTS.items():
        np.testing.assert_array_equal(loaded[name], weight)
        np.testing.assert_array_equal(ours[name], weight)
    x = {"x": RANDOM.normal(size=(3, 64)).astype(np.float32)}
    answers = [open_format(Format.ONNX, path, outputs=())(x)["y"] for path in (one, two)]
    np.testing.assert_array_equal(*answers)


def test_two_files_are_rewritten_into_one_that_computes_the_same(tmp_path, two):
    graph = read(two)
    draft = Draft(graph)
    for node in graph.nodes:
        draft.keep(node)
    draft.save(tmp_path / "again.onnx")
    assert not (tmp_path / "again.onnx.data").exists()
    assert not onnx.load(tmp_path / "again.onnx").metadata_props
    x = {"x": RANDOM.normal(size=(3, 64)).astype(np.float32)}
    answers = [open_format(Format.ONNX, path, outputs=())(x)["y"] for path in (two, tmp_path / "again.onnx")]
    np.testing.assert_array_equal(*answers)


def test_the_same_weights_in_any_order_give_the_same_bytes_and_the_graph_names_their_digest(tmp_path, two):
    write(tmp_path / "model.onnx", model(), payloads()[::-1], most=10_000)
    for name in ("model.onnx", "model.onnx.data"):
        assert (tmp_path / name).read_bytes() == (two.parent / name).read_bytes()
    graph = onnx.load(two, load_external_data=False)
    (said,) = graph.metadata_props
    assert (said.key, f"sha256:{said.value}") == (DATA_DIGEST, digest_file(two.parent / "model.onnx.data"))
    places = [{entry.key: entry.value for entry in tensor.external_data} for tensor in graph.graph.initializer]
    assert [int(place["offset"]) for place in places] == [0, ALIGNMENT * 4, ALIGNMENT * 8]
    assert {place["location"] for place in places} == {"model.onnx.data"}


@pytest.mark.parametrize("name", ["other.data", "../model.onnx.data", "/etc/passwd"])
def test_a_file_whose_data_lies_under_another_name_is_not_read(two, name):
    graph = onnx.load(two, load_external_data=False)
    graph.graph.initializer[0].external_data[0].value = name
    two.write_bytes(graph.SerializeToString())
    with pytest.raises(ExportFailed, match="names another file than its own for data"):
        read(two)
