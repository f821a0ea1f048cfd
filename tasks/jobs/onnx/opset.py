"""An ONNX graph of opset 18 in opset 17, which torch.export's exporter does not write by itself.

What differs: some operators take as an attribute what they later took as an input, some lack an attribute, and some do
not exist. docs/onnx.md says what can not be written. Law: what is written computes the same, or ExportFailed is raised.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from packhouse.errors import ExportFailed

NEWEST, OLDEST = 18, 17
"""From which opset to which one."""

_REDUCTIONS = {
    f"Reduce{kind}" for kind in ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "SumSquare")
}
_NEW = {"BitwiseAnd", "BitwiseNot", "BitwiseOr", "BitwiseXor", "CenterCropPad", "Col2Im", "GroupNormalization", "Mish"}
_ATTRIBUTES: Mapping[str, Mapping[str, object]] = {
    "Resize": {"antialias": 0, "keep_aspect_ratio_policy": b"stretch"},
    "LpPool": {"ceil_mode": 0},
    "ScatterElements": {},
    "ScatterND": {},
}
"""Attributes that opset 17 does not have -> the value at which they say what it does anyhow."""
_REDUCED = {"ScatterElements", "ScatterND"}


def to_opset_17(model: onnx.ModelProto) -> onnx.ModelProto:
    """Changes the model. Raises ExportFailed: it has something that opset 17 can not say."""
    if model.functions:
        raise _can_not("functions of its own as torch.export writes them")
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer if _is_small(tensor)}
    shapes = {value.name: value.type.tensor_type.shape for value in (*model.graph.value_info, *model.graph.input)}
    for graph in _graphs(model.graph):
        constants |= {node.output[0]: _value(node) for node in graph.node if node.op_type == "Constant"}
    for graph in _graphs(model.graph):
        for node in graph.node:
            if node.domain in ("", "ai.onnx"):
                _rewrite(node, constants, shapes)
    for entry in model.opset_import:
        if entry.domain in ("", "ai.onnx"):
            entry.version = OLDEST
    return model


def _rewrite(
    node: onnx.NodeProto, constants: Mapping[str, np.ndarray], shapes: Mapping[str, onnx.TensorShapeProto]
) -> None:
    kind = node.op_type
    if kind in _NEW:
        raise _can_not(f"the operator {kind}")
    if kind in _REDUCTIONS:
        _axes_as_attribute(node, constants)
    elif kind == "Split":
        _without_count(node, shapes)
    elif kind == "Pad" and len(node.input) > 3 and node.input[3]:
        raise _can_not("Pad of some axes alone")
    elif kind in _REDUCED and _attribute(node, "reduction") in (b"max", b"min"):
        raise _can_not(f"{kind} that takes the largest or smallest")
    elif kind == "Resize" and _attribute(node, "axes") is not None:
        raise _can_not("Resize of some axes alone")
    for name, same in _ATTRIBUTES.get(kind, {}).items():
        if (found := _attribute(node, name)) is not None:
            if found != same:
                raise _can_not(f"{kind} with {name}")
            _drop(node, name)
    if kind == "LpPool" and any(number != 1 for number in _attribute(node, "dilations") or ()):
        raise _can_not("LpPool with dilations")


def _axes_as_attribute(node: onnx.NodeProto, constants: Mapping[str, np.ndarray]) -> None:
    name = node.input[1] if len(node.input) > 1 else ""
    if name and name not in constants:
        raise _can_not(f"{node.op_type} over axes that are computed")
    axes = [int(axis) for axis in constants[name].reshape(-1)] if name else []
    if not axes and _attribute(node, "noop_with_empty_axes"):
        raise _can_not(f"{node.op_type} over no axes")
    _drop(node, "noop_with_empty_axes")
    del node.input[1:]
    if axes:
        node.attribute.append(onnx.helper.make_attribute("axes", axes))


def _without_count(node: onnx.NodeProto, shapes: Mapping[str, onnx.TensorShapeProto]) -> None:
    """Opset 17 has no Split into a number of parts of which the last may be smaller."""
    count = _attribute(node, "num_outputs")
    if count is None:
        return
    shape, axis = shapes.get(node.input[0]), _attribute(node, "axis") or 0
    size = shape.dim[axis].dim_value if shape and -len(shape.dim) <= axis < len(shape.dim) else 0
    if not size or size % count:
        raise _can_not(f"Split of {size or 'a changing size'} into {count}")
    _drop(node, "num_outputs")


def _can_not(what: str) -> ExportFailed:
    return ExportFailed(
        f"PH-0568 opset {OLDEST} does not have {what}", where="onnx", next=f"ask for opset {NEWEST} or later"
    )


def _attribute(node: onnx.NodeProto, name: str) -> Any:
    return next((onnx.helper.get_attribute_value(given) for given in node.attribute if given.name == name), None)


def _drop(node: onnx.NodeProto, name: str) -> None:
    kept = [given for given in node.attribute if given.name != name]
    del node.attribute[:]
    node.attribute.extend(kept)


def _value(node: onnx.NodeProto) -> np.ndarray:
    given = onnx.helper.get_attribute_value(node.attribute[0])
    return numpy_helper.to_array(given) if isinstance(given, onnx.TensorProto) else np.asarray(given)


def _is_small(tensor: onnx.TensorProto) -> bool:
    return tensor.data_location != onnx.TensorProto.EXTERNAL


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    yield graph
    for node in graph.node:
        yield from _inside(node)


def _inside(node: onnx.NodeProto) -> Iterable[onnx.GraphProto]:
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            if graph.node:
                yield from _graphs(graph)
