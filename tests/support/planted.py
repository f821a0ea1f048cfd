"""Exports that are wrong: each runs the true job, then spoils what it made. They stand in for a broken exporter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from packhouse.errors import ExportFailed
from packhouse.formats.runtime import open_format
from packhouse.spec.model import Format
from tasks.jobs import export_onnx, export_torchscript


def _spoil(arguments: dict[str, Any], change: Any) -> dict[str, Any]:
    facts = export_onnx.run(**arguments)
    path = Path(arguments["out"])
    model = onnx.load(path)
    change(model.graph)
    path.write_bytes(model.SerializeToString())
    return facts


def permuted_weight(**arguments: Any) -> dict[str, Any]:
    def change(graph: onnx.GraphProto) -> None:
        weight = max(graph.initializer, key=lambda tensor: np.prod(tensor.dims))
        weight.CopyFrom(numpy_helper.from_array(np.flip(numpy_helper.to_array(weight), 0).copy(), weight.name))

    return _spoil(arguments, change)


def one_weight_slightly_off(**arguments: Any) -> dict[str, Any]:
    """By a thousandth, which a tolerance of 1e-3 does not see."""

    def change(graph: onnx.GraphProto) -> None:
        weight = max(graph.initializer, key=lambda tensor: np.prod(tensor.dims))
        values = numpy_helper.to_array(weight).copy()
        values.reshape(-1)[np.abs(values).argmax()] *= 1.001
        weight.CopyFrom(numpy_helper.from_array(values, weight.name))

    return _spoil(arguments, change)


def _after_output(graph: onnx.GraphProto, nodes: list[onnx.NodeProto], name: str) -> None:
    """`name` is computed by `nodes` from what was `name`."""
    for node in graph.node:
        for index, output in enumerate(node.output):
            if output == name:
                node.output[index] = f"{name}_before"
    graph.node.extend(nodes)


def broadcastable_shape(**arguments: Any) -> dict[str, Any]:
    """(batch, 4) becomes (1, batch, 4), which broadcasts against the true one without a difference."""

    def change(graph: onnx.GraphProto) -> None:
        name = graph.output[0].name
        graph.initializer.append(numpy_helper.from_array(np.array([0], np.int64), "axes"))
        _after_output(graph, [helper.make_node("Unsqueeze", [f"{name}_before", "axes"], [name])], name)
        graph.output[0].type.tensor_type.ClearField("shape")

    return _spoil(arguments, change)


def not_a_number(**arguments: Any) -> dict[str, Any]:
    """NaN only where the first feature is zero: one case in many."""

    def change(graph: onnx.GraphProto) -> None:
        name, x = graph.output[0].name, graph.input[0].name
        graph.initializer.append(numpy_helper.from_array(np.zeros(1, np.float32), "zero"))
        graph.initializer.append(numpy_helper.from_array(np.array([1], np.int64), "axis"))
        nodes = [
            helper.make_node("ReduceSum", [x, "axis"], ["sum"], keepdims=1),
            helper.make_node("Mul", ["sum", "zero"], ["nothing"]),
            helper.make_node("Div", ["nothing", "sum"], ["nan_at_zero"]),
            helper.make_node("Add", [f"{name}_before", "nan_at_zero"], [name]),
        ]
        _after_output(graph, nodes, name)

    return _spoil(arguments, change)


def outputs_swapped(**arguments: Any) -> dict[str, Any]:
    def change(graph: onnx.GraphProto) -> None:
        one, two = (output.name for output in graph.output)
        swap = {one: two, two: one}
        for node in graph.node:
            for index, output in enumerate(node.output):
                node.output[index] = swap.get(output, output)

    return _spoil(arguments, change)


def outputs_in_another_order(**arguments: Any) -> dict[str, Any]:
    def change(graph: onnx.GraphProto) -> None:
        reordered = list(reversed(graph.output))
        del graph.output[:]
        graph.output.extend(reordered)

    return _spoil(arguments, change)


def another_dtype(**arguments: Any) -> dict[str, Any]:
    def change(graph: onnx.GraphProto) -> None:
        name = graph.output[0].name
        _after_output(graph, [helper.make_node("Cast", [f"{name}_before"], [name], to=TensorProto.DOUBLE)], name)
        graph.output[0].type.tensor_type.elem_type = TensorProto.DOUBLE

    return _spoil(arguments, change)


def batch_is_fixed(**arguments: Any) -> dict[str, Any]:
    """A graph that says its batch may change, and computes with the example's."""

    def change(graph: onnx.GraphProto) -> None:
        name = graph.output[0].name
        graph.initializer.append(numpy_helper.from_array(np.array([2, 4], np.int64), "fixed"))
        _after_output(graph, [helper.make_node("Reshape", [f"{name}_before", "fixed"], [name])], name)

    return _spoil(arguments, change)


def traced(**arguments: Any) -> dict[str, Any]:
    """TorchScript by trace where script would have kept the branch."""

    def no_script(*_: Any) -> Any:
        raise RuntimeError("script is switched off")

    export_torchscript.script = no_script  # this child only
    return export_torchscript.run(**arguments)


def no_file(**arguments: Any) -> dict[str, Any]:
    return {"exporter": "none", "notes": []}


def killed(**arguments: Any) -> dict[str, Any]:
    import os
    import signal

    os.kill(os.getpid(), signal.SIGSEGV)
    return {}


def does_not_quantise(*, model: str, **_: Any) -> dict[str, Any]:
    open_format(Format.ONNX, Path(model), outputs=())  # fails where its data is not there
    raise ExportFailed("planted, and its data lies beside it")
