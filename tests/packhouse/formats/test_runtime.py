"""The runtimes: every format of a release answers by the model's own names, and no pickle is ever loaded."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from packhouse.errors import ReleaseInvalid
from packhouse.formats.runtime import as_tensor, as_text, open_format, refuse_pickles, torch_runner
from packhouse.parity.golden_file import read_cases
from packhouse.release.manifest import GOLDEN
from packhouse.spec.model import Format
from tests.support.small_release import FORMATS


@pytest.mark.parametrize("format", FORMATS)
def test_every_format_answers_by_the_model_s_names_at_every_batch(release, format):
    runner = open_format(format, release.folder / format.file, outputs=["y"])
    for case in read_cases(release.folder / GOLDEN):
        answer = runner(case.inputs)
        assert list(answer) == ["y"]
        assert (answer["y"].dtype, answer["y"].shape) == (np.float32, case.expected["y"].shape)
        np.testing.assert_allclose(answer["y"], case.expected["y"], atol=1.0 if format.int8 else 1e-4)


def test_more_threads_give_the_same_answer(release):
    x = {"x": np.ones((2, 16), np.float32)}
    one, two = (open_format(Format.ONNX, release.folder / "model.onnx", outputs=["y"], threads=n)(x) for n in (1, 2))
    np.testing.assert_allclose(one["y"], two["y"], rtol=1e-6)


def test_an_input_that_the_graph_dropped_is_not_fed(tmp_path):
    info = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Neg", ["x"], ["y"])], "g", info[:1], info[1:])
    opset = [helper.make_opsetid("", 20)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=10), tmp_path / "model.onnx")
    runner = open_format(Format.ONNX, tmp_path / "model.onnx", outputs=["y"])
    given = {"x": np.array([1, 2], np.float32), "unused": np.zeros(3)}
    np.testing.assert_array_equal(runner(given)["y"], [-1, -2])


def test_outputs_of_any_nesting_are_named_in_their_order():
    def model(x: torch.Tensor) -> object:
        return {"b": x, "a": (x + 1, [x + 2])}

    answer = torch_runner(model, ["one", "two", "three"])({"x": np.zeros(1, np.float32)})
    assert {name: float(array[0]) for name, array in answer.items()} == {"one": 0, "two": 1, "three": 2}


def test_another_number_of_outputs_does_not_get_the_model_s_names():
    answer = torch_runner(lambda x: (x, x), ["y"])({"x": np.zeros(1, np.float32)})
    assert list(answer) == ["output_0", "output_1"]


def test_a_tensor_has_its_own_memory():
    array = np.zeros(3, np.float32)
    array.flags.writeable = False
    as_tensor(array).add_(1)
    assert not array.any()


def archive(path: Path, entries: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as out:
        for name, data in entries.items():
            out.writestr(f"model/{name}", data)
    return path


def config(**entries: object) -> bytes:
    return json.dumps({"config": entries}).encode()


PLAIN = {
    "archive_format": b"pt2",
    "models/model.json": b"{}",
    "data/weights/model_weights_config.json": config(w={"path_name": "weight_0", "use_pickle": False}),
    "data/weights/weight_0": b"1234",
    "data/constants/tensor_0": b"1234",
    "data/sample_inputs/model.pt": b"",
}

PICKLES = {
    "example inputs": {"data/sample_inputs/model.pt": b"PK"},
    "a pickled weight": {"data/weights/model_weights_config.json": config(w={"use_pickle": True})},
    "a custom object": {"data/constants/custom_obj_0": b"\x80\x04"},
    "an unknown file": {"extra/anything.json": b"{}"},
    "a compiled library": {"data/aotinductor/model/x.so": b"\x7fELF"},
    "weights of an older torch": {"data/weights/model.pt": b"PK"},
    "a config that is none": {"data/weights/model_weights_config.json": b"\x80\x04."},
    "a config of another form": {"data/weights/model_weights_config.json": config(w=1)},
    "a list for a config": {"data/weights/model_weights_config.json": b"[]"},
}


def test_a_program_without_pickles_is_let_through(tmp_path, release):
    refuse_pickles(archive(tmp_path / "model.pt2", PLAIN))
    refuse_pickles(release.folder / "model.pt2")


@pytest.mark.parametrize("size", ["s0", "2*s31", "Max(1, s0)//2 + -u3", "Symbol('s77', positive=True, integer=True)"])
def test_a_program_whose_sizes_are_arithmetic_is_let_through(tmp_path, size):
    graph = json.dumps({"sym": {"expr_str": size}}).encode()
    refuse_pickles(archive(tmp_path / "model.pt2", PLAIN | {"models/model.json": graph}))


@pytest.mark.parametrize(
    "size",
    ["__import__('os')", "s0.__class__", "print(1)", "lambda: 1", "[s0]", "1" * 100_000 + "!", "/" * 100_000 + "!"],
)
def test_a_program_that_carries_another_expression_is_refused_at_once(tmp_path, size):
    """torch.export.load would evaluate it as Python."""
    graph = json.dumps({"sym": [{"expr_str": "s0"}, {"expr_str": size}]}).encode()
    with pytest.raises(ReleaseInvalid, match="carries an expression that is no size"):
        refuse_pickles(archive(tmp_path / "model.pt2", PLAIN | {"models/model.json": graph}))


@pytest.mark.parametrize(
    "graph", [b'{"expr\\u005fstr": "print(1)"}', b'{"a": [{"expr_str": {"x": 1}}]}', b"{", b"[" * 100_000, b"\x80\x04."]
)
def test_a_graph_that_hides_an_expression_or_is_none_is_refused(tmp_path, graph):
    with pytest.raises(ReleaseInvalid, match=r"carries an expression|is not a graph"):
        refuse_pickles(archive(tmp_path / "model.pt2", PLAIN | {"models/model.json": graph}))


@pytest.mark.parametrize("entries", PICKLES.values(), ids=PICKLES)
def test_a_program_that_carries_a_pickle_is_refused(tmp_path, entries):
    with pytest.raises(ReleaseInvalid, match=r"^model\.pt2: .*(carries a pickle|is not a config of payloads)"):
        refuse_pickles(archive(tmp_path / "model.pt2", PLAIN | entries))


def test_codes_become_the_text_that_they_stand_for_and_any_other_a_text_that_has_no_code():
    given = {"plan": np.array([[1, 0], [-1, 5]]), "x": np.zeros(2)}
    found = as_text(given, {"plan": ("?", "year")})
    np.testing.assert_array_equal(found["plan"], np.array([["year", "?"], ["??", "??"]], dtype=object))
    assert found["x"] is given["x"]
    assert as_text(found, {"plan": ("?", "year")})["plan"] is found["plan"]
