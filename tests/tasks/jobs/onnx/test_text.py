"""An encoder of text in front of a graph: it takes no name that is there already."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from tasks.jobs.onnx.text import take_text


def test_a_parameter_that_is_called_like_the_code_of_an_input_keeps_its_name():
    """An input `model` and a parameter `code`: the net is `model`, and its parameter `model.code`."""
    offset = numpy_helper.from_array(np.array([100], np.int64), "model.code")
    graph = helper.make_graph(
        [helper.make_node("Add", ["model", "model.code"], ["y"])],
        "g",
        [helper.make_tensor_value_info("model", TensorProto.INT64, ["n"])],
        [helper.make_tensor_value_info("y", TensorProto.INT64, ["n"])],
        [offset],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    take_text(made, {"model": ("polo", "golf")})
    onnx.checker.check_model(made, full_check=True)
    session = onnxruntime.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    words = np.array(["golf", "polo", "other"], dtype=object)
    assert session.run(None, {"model": words})[0].tolist() == [101, 100, 99]


def test_a_name_that_only_a_streamed_tensor_has_is_taken_too():
    graph = helper.make_graph(
        [helper.make_node("Identity", ["plan"], ["y"])],
        "g",
        [helper.make_tensor_value_info("plan", TensorProto.INT64, ["n"])],
        [helper.make_tensor_value_info("y", TensorProto.INT64, ["n"])],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    take_text(made, {"plan": ("a",)}, ["plan.code"])
    assert made.graph.node[0].output[0] == "plan.code."
