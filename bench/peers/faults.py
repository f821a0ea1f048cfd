"""Faults of an exporter, planted by one hook for every tool: torch.onnx.export is wrapped, and what it made is spoiled
before the tool sees it. All of them call it. The graph's first input is the model's, the first output its logits.

`python -m bench.peers.with_...` takes a fault's name; packhouse runs its export job as `bench.peers.faults:NAME`.
"""

from __future__ import annotations

import copy
import os
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

Change = Callable[[onnx.GraphProto, int], None]
"""Changes a graph in place; the number is the batch of the exporter's example."""

FLOAT = TensorProto.FLOAT
PLANTED = "planted."  # what is added has names that no exporter gives
NOT_PLANTED = 77
"""The exit status of a process whose graph has nothing that the fault could be planted in."""


class NotThere(Exception):
    """The graph lacks what the fault is planted in."""


def plant(name: str) -> None:
    """From now on torch.onnx.export of this process is broken so."""
    change, export = FAULTS[name], torch.onnx.export

    def broken(*args: Any, **options: Any) -> Any:
        program = export(*args, **options)
        try:
            _spoil(change, program, _batch((args[1:2], options)), options.get("f", (*args, None, None)[2]))
        except Exception:  # a tool could take it for a refusal of its own
            traceback.print_exc()
            os._exit(NOT_PLANTED)
        return program

    torch.onnx.export = broken


def _spoil(change: Change, program: Any, batch: int, file: Any) -> None:
    """file: where the exporter was to write, or None: the tool takes the program."""
    if file is not None:
        model = onnx.load(file)
        change(model.graph, batch)
        onnx.save(model, file)
        return
    import onnxscript.ir as ir

    proto = ir.serde.serialize_model(program.model)
    change(proto.graph, batch)
    program.model = ir.serde.deserialize_model(proto)


def __getattr__(name: str) -> Callable[..., dict[str, Any]]:
    """packhouse's export job in a child whose exporter has this fault."""
    if name not in FAULTS:
        raise AttributeError(name)

    def job(**arguments: Any) -> dict[str, Any]:
        from tasks.jobs import export_onnx

        plant(name)
        return export_onnx.run(**arguments)

    return job


def _batch(given: Any) -> int:
    leaves = torch.utils._pytree.tree_leaves(given)
    return next(int(leaf.shape[0]) for leaf in leaves if isinstance(leaf, torch.Tensor))


# What is spoiled


def _weight(change: Callable[[np.ndarray], np.ndarray]) -> Change:
    """The largest matrix that is multiplied with."""

    def spoil(graph: onnx.GraphProto, _: int) -> None:
        looked_up = {name for node in graph.node if node.op_type == "Gather" for name in node.input}
        arrays = [(one, numpy_helper.to_array(one)) for one in graph.initializer if one.name not in looked_up]
        matrices = [(one, array) for one, array in arrays if array.ndim == 2 and array.dtype == np.float32]
        if not matrices:
            raise NotThere("a matrix")
        one, array = max(matrices, key=lambda pair: pair[1].size)
        one.CopyFrom(numpy_helper.from_array(change(array.copy()), one.name))

    return spoil


def _every_weight_through_fp16(graph: onnx.GraphProto, _: int) -> None:
    for one in graph.initializer:
        if one.data_type == FLOAT:
            array = numpy_helper.to_array(one).astype(np.float16).astype(np.float32)
            one.CopyFrom(numpy_helper.from_array(array, one.name))


def _rows_swapped(array: np.ndarray) -> np.ndarray:
    array[[0, 1]] = array[[1, 0]]
    return array


def _largest_off_by_a_thousandth(array: np.ndarray) -> np.ndarray:
    array.reshape(-1)[np.abs(array).argmax()] *= np.float32(1.001)
    return array


def _one_bit(array: np.ndarray) -> np.ndarray:
    """The lowest bit of the exponent: the largest weight is halved or doubled."""
    array.reshape(-1).view(np.uint32)[np.abs(array).argmax()] ^= np.uint32(1 << 23)
    return array


def _gelu_by_tanh(graph: onnx.GraphProto, _: int) -> None:
    """The approximation, where the model has the exact one."""
    nodes = [copy.deepcopy(node) for node in graph.node]
    if not any(node.op_type in ("Erf", "Gelu") for node in nodes):
        raise NotThere("a GELU")
    _add(graph, linear=np.float32(2 / np.sqrt(np.pi)), cubic=np.float32(0.044715 * 4 / np.sqrt(np.pi)))
    del graph.node[:]
    for node in nodes:
        if node.op_type == "Gelu":
            del node.attribute[:]
            node.attribute.append(helper.make_attribute("approximate", "tanh"))
        graph.node.extend(_tanh_for_erf(node) if node.op_type == "Erf" else [node])


def _tanh_for_erf(node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
    x, y = node.input[0], node.output[0]
    yield helper.make_node("Mul", [x, x], [f"{y}.square"])
    yield helper.make_node("Mul", [f"{y}.square", f"{PLANTED}cubic"], [f"{y}.scaled"])
    yield helper.make_node("Add", [f"{y}.scaled", f"{PLANTED}linear"], [f"{y}.sum"])
    yield helper.make_node("Mul", [f"{y}.sum", x], [f"{y}.inside"])
    yield helper.make_node("Tanh", [f"{y}.inside"], [y])


def _epsilon(graph: onnx.GraphProto, _: int) -> None:
    """A layer norm's epsilon is 1e-3, whatever it was."""
    norms = [node for node in graph.node if node.op_type == "LayerNormalization"]
    if not norms:
        raise NotThere("a LayerNormalization")
    for node in norms:
        kept = [attribute for attribute in node.attribute if attribute.name != "epsilon"]
        del node.attribute[:]
        node.attribute.extend([*kept, helper.make_attribute("epsilon", 1e-3)])


def _batch_fixed(graph: onnx.GraphProto, batch: int) -> None:
    """The graph says that its batch may change, and computes with the example's."""
    last = [graph.output[0].type.tensor_type.shape.dim[-1].dim_value] if _rank(graph) == 3 else []
    _after(("Reshape", ["y", "fixed"]), fixed=np.array([batch, -1, *last]))(graph, batch)


def _rank(graph: onnx.GraphProto) -> int:
    return len(graph.output[0].type.tensor_type.shape.dim)


def _classes_swapped(graph: onnx.GraphProto, batch: int) -> None:
    last = graph.output[0].type.tensor_type.shape.dim[-1].dim_value
    order = np.arange(last)
    order[[0, 1]] = order[[1, 0]]
    _after(("Gather", ["y", "order"], {"axis": _rank(graph) - 1}), order=order)(graph, batch)


def _after(*nodes: tuple[Any, ...], **constants: Any) -> Change:
    """The output goes through further nodes: (operator, inputs, attributes), where `y` is what it was, `x` the input,
    `a`, `b` ... what the nodes so far gave."""

    def change(graph: onnx.GraphProto, _: int) -> None:
        output, x = graph.output[0].name, graph.input[0].name
        for node in graph.node:
            for names in (node.output, node.input):
                for place, name in enumerate(names):
                    names[place] = f"{PLANTED}before" if name == output else name
        _add(graph, **constants)
        known = {"y": f"{PLANTED}before", "x": x} | {name: f"{PLANTED}{name}" for name in constants}
        for place, (operator, inputs, *attributes) in enumerate(nodes):
            made = output if place == len(nodes) - 1 else f"{PLANTED}{place}"
            given = [known.get(name, name) for name in inputs]
            graph.node.append(helper.make_node(operator, given, [made], **(attributes[0] if attributes else {})))
            known["abcdefgh"[place]] = made

    return change


def _add(graph: onnx.GraphProto, **constants: Any) -> None:
    graph.initializer.extend(
        numpy_helper.from_array(np.asarray(value), f"{PLANTED}{name}") for name, value in constants.items()
    )


_NAN_AT_ZERO = _after(
    ("Cast", ["x"], {"to": FLOAT}), ("Abs", ["a"]), ("ReduceSum", ["b"], {"keepdims": 0}), ("Equal", ["c", "nothing"]),
    ("Where", ["d", "nan", "y"]), nothing=np.float32(0), nan=np.float32(np.nan),
)  # fmt: skip
_FIFTH_ROW_ON = _after(
    ("Slice", ["y", "four", "end", "first"]), ("Mul", ["a", "more"]), ("Slice", ["y", "first", "four", "first"]),
    ("Concat", ["c", "b"], {"axis": 0}),
    four=np.array([4]), end=np.array([10**6]), first=np.array([0]), more=np.float32(1.01),
)  # fmt: skip

HEALTHY = "nothing"
FAULTS: dict[str, Change] = {
    HEALTHY: lambda *_: None,
    "sign_turned": _after(("Neg", ["y"])),
    "classes_swapped": _classes_swapped,
    "rows_of_a_weight_swapped": _weight(_rows_swapped),
    "one_bit_of_a_weight_flipped": _weight(_one_bit),
    "one_weight_off_by_a_thousandth": _weight(_largest_off_by_a_thousandth),
    "weights_through_fp16": _every_weight_through_fp16,
    "gelu_by_tanh": _gelu_by_tanh,
    "layer_norm_epsilon_1e_3": _epsilon,
    "batch_fixed": _batch_fixed,
    "one_percent_off_from_the_fifth_row_on": _FIFTH_ROW_ON,
    "nan_where_all_inputs_are_zero": _NAN_AT_ZERO,
}
