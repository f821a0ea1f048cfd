"""What a broken exporter could make of a graph: each changes one in place. y is the only output, x the only input."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Change = Callable[[onnx.GraphProto], None]
FLOAT, DOUBLE, INT = TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.INT64


def after(*nodes: tuple[Any, ...], **constants: Any) -> Change:
    """The output goes through further nodes: (operator, inputs, attributes), where `y` is what it was, `x` the input,
    `a`, `b` ... what the nodes so far gave."""

    def change(graph: onnx.GraphProto) -> None:
        output, x = graph.output[0].name, graph.input[0].name
        for node in graph.node:
            for place, name in enumerate(node.output):
                node.output[place] = "before" if name == output else name
        add(graph, constants)
        names = {"y": "before", "x": x}
        for place, (operator, inputs, *attributes) in enumerate(nodes):
            made = output if place == len(nodes) - 1 else f"made{place}"
            given = [names.get(name, name) for name in inputs]
            graph.node.append(helper.make_node(operator, given, [made], **(attributes[0] if attributes else {})))
            names["abcdefgh"[place]] = made
        graph.output[0].type.tensor_type.ClearField("shape")

    return change


def before(operator: str, *inputs: str, **constants: Any) -> Change:
    """The input goes through a node first; `x` is the input."""

    def change(graph: onnx.GraphProto) -> None:
        x = graph.input[0].name
        for node in graph.node:
            for place, name in enumerate(node.input):
                node.input[place] = "changed" if name == x else name
        add(graph, constants)
        graph.node.insert(0, helper.make_node(operator, [x if name == "x" else name for name in inputs], ["changed"]))

    return change


def weights(change: Callable[[np.ndarray], np.ndarray]) -> Change:
    """The largest matrix is another."""
    return initializers(change, lambda array: array.ndim > 1)


def initializers(change: Callable[[np.ndarray], np.ndarray], which: Callable[[np.ndarray], bool]) -> Change:
    def apply(graph: onnx.GraphProto) -> None:
        arrays = [(tensor, numpy_helper.to_array(tensor)) for tensor in graph.initializer]
        fitting = [(tensor, array) for tensor, array in arrays if array.dtype == np.float32 and which(array)]
        tensor, array = max(fitting, key=lambda pair: pair[1].size)
        tensor.CopyFrom(numpy_helper.from_array(change(array.copy()).astype(np.float32), tensor.name))

    return apply


def operator(name: str, becomes: str) -> Change:
    def change(graph: onnx.GraphProto) -> None:
        (node,) = (node for node in graph.node if node.op_type == name)
        node.op_type = becomes

    return change


def declared(dtype: int, change: Change) -> Change:
    def apply(graph: onnx.GraphProto) -> None:
        change(graph)
        graph.output[0].type.tensor_type.elem_type = dtype

    return apply


def renamed(graph: onnx.GraphProto) -> None:
    after(("Identity", ["y"]))(graph)
    graph.node[-1].output[0] = graph.output[0].name = "another"


def one_output_more(graph: onnx.GraphProto) -> None:
    graph.node.append(helper.make_node("Identity", [graph.output[0].name], ["more"]))
    graph.output.append(helper.make_tensor_value_info("more", FLOAT, None))


def add(graph: onnx.GraphProto, constants: dict[str, Any]) -> None:
    for name, value in constants.items():
        graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
