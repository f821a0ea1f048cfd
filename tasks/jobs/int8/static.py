"""Which tensors of a graph go through 8 bits when some of its operators are static. Pure."""

from __future__ import annotations

from collections.abc import Set

import numpy as np
from numpy.typing import NDArray

from tasks.jobs.onnx.graph import Graph

ABSORBED = ("Relu", "Clip")
"""An activation after an operator is a bound of its range: the runtime leaves the node out."""

SAME_RANGE = ("MaxPool", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze")
"""Give no value that they were not given."""

FOLLOW = ("Add", "GlobalAveragePool", "AveragePool", "Concat")
"""Have integer kernels, and so keep the tensors between two static operators in 8 bits."""


def followed(graph: Graph, static: Set[str]) -> dict[str, str]:
    """tensor -> the tensor whose range it has, of all that go through 8 bits. static: first outputs of the operators.

    The answer of the last matrix product stays as it is: integer kernels can give floats there.
    """
    found: dict[str, str] = {}
    for node in graph.nodes:
        name = node.output[0]
        if name in static:
            found.setdefault(node.input[0], node.input[0])
            end = _behind(graph, name)
            if end not in graph.outputs or node.op_type == "Conv":
                found[end] = end
        elif node.op_type in SAME_RANGE and node.input[0] in found and name not in graph.outputs:
            found[name] = found[node.input[0]]
        elif node.op_type in FOLLOW and all(entry in found for entry in node.input):
            end = _behind(graph, name)
            if end not in graph.outputs:
                found[end] = end
    return found


def _behind(graph: Graph, name: str) -> str:
    """The tensor behind the activation that alone reads this one."""
    while name not in graph.outputs and graph.uses[name] == 1:
        reader = graph.reader(name)
        if reader is None or reader.op_type not in ABSORBED or reader.input[0] != name:
            break
        name = reader.output[0]
    return name


def scale_and_zero(low: float, high: float) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Of unsigned 8 bits over the range, which is widened to hold zero: padding and Relu need it exactly."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = np.float32((high - low) / 255) or np.float32(1)
    return np.asarray(scale, np.float32), np.asarray(np.clip(np.rint(-low / scale), 0, 255), np.uint8)
