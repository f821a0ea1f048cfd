"""The recipes for an INT8 ONNX file: which there are, and which are tried on a graph, in their order.

The order is the preference: what runs on every processor before what needs one that does not saturate, what is fast
before what is exact. docs/int8.md has the table and where it comes from.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum

import onnx

from packhouse.spec.model import Formats
from tasks.jobs.int8.weights import FULL, PORTABLE
from tasks.jobs.onnx.graph import Graph


class Way(StrEnum):
    """dynamic: activations are measured at run time. static: by ranges that calibration found. blocks: the weights
    alone, in blocks with a scale each."""

    DYNAMIC = "dynamic"
    STATIC = "static"
    BLOCKS = "blocks"


class Ranges(StrEnum):
    """How calibration chooses the range of an activation from what it saw."""

    MINMAX = "min-max"
    PERCENTILE = "percentile"
    ENTROPY = "entropy"


@dataclass(frozen=True)
class Recipe:
    """matrices: what is done with MatMul and Gemm. ranges: of static activations. limit: the largest absolute value of
    a weight. bits: of weights in blocks. asked: the spec asks for it, so that its gate alone decides."""

    matrices: Way
    ranges: Ranges | None = None
    per_channel: bool = True
    limit: int = PORTABLE
    bits: int = 8
    asked: bool = False

    @property
    def portable(self) -> bool:
        """Answers alike on processors without VNNI. What MatMulNBits does there was not measured."""
        return self.limit == PORTABLE and self.matrices is not Way.BLOCKS

    @property
    def clips(self) -> bool:
        """Values that calibration saw lie outside of its ranges: how many others will, few samples do not show."""
        return self.ranges in (Ranges.PERCENTILE, Ranges.ENTROPY)

    @property
    def name(self) -> str:
        if self.matrices is Way.BLOCKS:
            return f"weight-only {self.bits}-bit"
        scales = "per channel" if self.per_channel else "per tensor"
        way = f"static {self.ranges}" if self.ranges else "dynamic"
        way += ", dynamic matrices" if self.ranges and self.matrices is Way.DYNAMIC else ""
        return f"{way}, {scales}, {'7' if self.limit == PORTABLE else '8'}-bit weights"


MIN_ELEMENTS = 512
"""A smaller weight saves less than the nodes cost that quantise it."""

MIN_BLOCKS_ELEMENTS = 2**16
"""Of a matrix whose weights alone are quantised."""

DYNAMIC = (
    Recipe(Way.DYNAMIC, per_channel=False),
    Recipe(Way.DYNAMIC),
    Recipe(Way.DYNAMIC, per_channel=False, limit=FULL),
    Recipe(Way.DYNAMIC, limit=FULL),
)
STATIC = (
    Recipe(Way.STATIC, Ranges.MINMAX),
    Recipe(Way.STATIC, Ranges.PERCENTILE),
    Recipe(Way.STATIC, Ranges.ENTROPY),
)


def recipes(graph: Graph, formats: Formats) -> Iterator[Recipe]:
    """Those that find something to quantise in the graph."""
    if formats.int8_weights and any(in_blocks(graph, node) for node in graph.nodes):
        yield Recipe(Way.BLOCKS, bits=formats.int8_weights, asked=True)
    if any(convolves(graph, node) for node in graph.nodes):
        matrices = any(multiplies(graph, node) for node in graph.nodes)
        for limit in (PORTABLE, FULL):
            for recipe in STATIC:
                yield replace(recipe, limit=limit)
                if matrices:
                    yield replace(recipe, limit=limit, matrices=Way.DYNAMIC)
    elif any(takes(graph, node, DYNAMIC[0]) for node in graph.nodes):
        yield from DYNAMIC


def takes(graph: Graph, node: onnx.NodeProto, recipe: Recipe) -> bool:
    if multiplies(graph, node):
        return recipe.matrices is not Way.BLOCKS or in_blocks(graph, node)
    return looks_up(graph, node) or recurs(graph, node) or (recipe.ranges is not None and convolves(graph, node))


def multiplies(graph: Graph, node: onnx.NodeProto) -> bool:
    """By a constant matrix."""
    if node.op_type == "Gemm":
        given = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
        plain = given.get("alpha", 1.0) == given.get("beta", 1.0) == 1.0 and not given.get("transA", 0)
        return plain and _weighs(graph, node, 1, rank=2)
    return node.op_type == "MatMul" and _weighs(graph, node, 1, rank=2)


def in_blocks(graph: Graph, node: onnx.NodeProto) -> bool:
    return multiplies(graph, node) and math.prod(graph.shape(node.input[1])) >= MIN_BLOCKS_ELEMENTS


def convolves(graph: Graph, node: onnx.NodeProto) -> bool:
    bias = node.input[2] if len(node.input) > 2 else ""
    return node.op_type == "Conv" and _weighs(graph, node, 1) and (not bias or graph.is_constant(bias))


def looks_up(graph: Graph, node: onnx.NodeProto) -> bool:
    axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 0)
    return node.op_type == "Gather" and axis == 0 and _weighs(graph, node, 0, rank=2)


def recurs(graph: Graph, node: onnx.NodeProto) -> bool:
    plain = not any(attribute.name == "layout" and attribute.i for attribute in node.attribute)
    return node.op_type == "LSTM" and plain and _weighs(graph, node, 1, rank=3) and _weighs(graph, node, 2, rank=3)


def _weighs(graph: Graph, node: onnx.NodeProto, position: int, rank: int | None = None) -> bool:
    if len(node.input) <= position or not graph.is_constant(node.input[position]):
        return False
    name = node.input[position]
    shape = graph.shape(name)
    fits = rank is None or len(shape) == rank
    return fits and math.prod(shape) >= MIN_ELEMENTS and graph.is_float(name)
