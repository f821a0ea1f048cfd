"""Computes what a graph computes from constants alone, where a quantised operator reads its weights from there.

The exporter gives an LSTM its weights through Slice and Concat, and a tied matrix through Transpose.
"""

from __future__ import annotations

from pathlib import Path

import onnx

from packhouse.formats.runtime import open_format
from packhouse.spec.model import Format
from tasks.jobs.onnx.graph import Draft, Graph, used

WEIGHTS = {"LSTM": (1, 2), "MatMul": (1,), "Gemm": (1, 2), "Conv": (1, 2), "Gather": (0,)}
"""Inputs of an operator that can be weights."""


def folded(graph: Graph, file: Path) -> Graph:
    """The graph with such weights as constants. file: where the part that computes them is written."""
    wanted = []
    for node in graph.nodes:
        for position in WEIGHTS.get(node.op_type, ()):
            name = node.input[position] if position < len(node.input) else ""
            if name and not graph.is_constant(name) and _is_fixed(graph, name):
                wanted.append(name)
    if not wanted:
        return graph
    part = Graph(_without_ends(graph.model), graph.large)
    draft = Draft(part)
    draft.outputs = list(dict.fromkeys(wanted))
    for node in graph.nodes:
        draft.keep(node)
    draft.save(file)
    values = open_format(Format.ONNX, file, outputs=())({})
    file.unlink()
    return Graph(graph.model, graph.large, dict(values))


def _is_fixed(graph: Graph, name: str) -> bool:
    """It hangs on constants alone."""
    waiting, seen = [name], {name}
    while waiting:
        name = waiting.pop()
        if graph.is_constant(name):
            continue
        node = graph.producers.get(name)
        if node is None or node.op_type.startswith("Random"):
            return False
        fresh = set(used(node)) - seen
        waiting += fresh
        seen |= fresh
    return True


def _without_ends(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph with no inputs and no outputs."""
    part = onnx.ModelProto()
    part.CopyFrom(model)
    del part.graph.input[:]
    del part.graph.output[:]
    return part
