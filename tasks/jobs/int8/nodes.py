"""Rewrites a graph by a recipe: what stands in each operator's place.

The patterns are those that ONNX Runtime fuses into its integer kernels:
https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from packhouse.formats.arrays import Array
from tasks.jobs.int8.recipes import Recipe, Way, convolves, looks_up, multiplies, recurs, takes
from tasks.jobs.int8.static import followed, scale_and_zero
from tasks.jobs.int8.weights import FULL, in_blocks, quantised, scale_of
from tasks.jobs.onnx.graph import MICROSOFT, Draft, Graph

Range = tuple[float, float]

BLOCK = {4: 32, 8: 128}
"""Weights with one scale, by bits."""


def key(node: onnx.NodeProto) -> str:
    """What a node is called here: its first output, which is unique."""
    return str(next(name for name in node.output if name))


def quantisable(graph: Graph, recipe: Recipe) -> list[onnx.NodeProto]:
    return [node for node in graph.nodes if takes(graph, node, recipe)]


def rewrite(graph: Graph, recipe: Recipe, ranges: Mapping[str, Range], left: Set[str] = frozenset()) -> Draft:
    """left: keys of nodes that stay in fp32. ranges: of the tensors that `followed` names, for a static recipe."""
    return _Rewriting(graph, recipe, ranges, left).draft


def static_nodes(graph: Graph, recipe: Recipe, left: Set[str] = frozenset()) -> set[str]:
    """Keys of the nodes whose activations take the ranges of calibration."""
    return {
        key(node)
        for node in graph.nodes
        if recipe.ranges is not None
        and key(node) not in left
        and (convolves(graph, node) or (recipe.matrices is Way.STATIC and multiplies(graph, node)))
    }


class _Rewriting:
    def __init__(self, graph: Graph, recipe: Recipe, ranges: Mapping[str, Range], left: Set[str]) -> None:
        self.graph, self.recipe, self.ranges = graph, recipe, ranges
        self.draft = Draft(graph)
        self.static = static_nodes(graph, recipe, left)
        sources = followed(graph, self.static)
        self.sources = {name: source for name, source in sources.items() if source in ranges}
        self.measured: dict[str, tuple[str, str, str]] = {}
        for name in graph.inputs:
            self._rounded(name, name)
        for node in graph.nodes:
            self._node(node, left)

    def _node(self, node: onnx.NodeProto, left: Set[str]) -> None:
        mine = onnx.NodeProto()
        mine.CopyFrom(node)
        if key(node) not in left:
            for position, name in enumerate(mine.input):
                mine.input[position] = self.draft.aliases.get(name, name)
        plain = {}
        for position, name in enumerate(mine.output):
            if name in self.sources and name in self.graph.outputs:
                plain[name] = mine.output[position] = f"{name}.plain"
        if key(node) in left or not takes(self.graph, node, self.recipe):
            self.draft.keep(mine)
        else:
            self._quantised(node, mine)
        for name in node.output:
            self._rounded(name, plain.get(name, name))

    def _quantised(self, node: onnx.NodeProto, mine: onnx.NodeProto) -> None:
        """node: as it was; mine: with the names that it reads and gives now."""
        if key(node) in self.static:
            self._static(mine)
        elif looks_up(self.graph, node):
            self._gather(mine)
        elif recurs(self.graph, node):
            self._lstm(mine)
        elif self.recipe.matrices is Way.BLOCKS:
            self._blocks(mine)
        else:
            self._dynamic(mine)

    def _rounded(self, name: str, plain: str) -> None:
        """The tensor through 8 bits and back, where a static operator reads or gives it."""
        if name not in self.sources:
            return
        scale, zero = scale_and_zero(*self.ranges[self.sources[name]])
        inputs = [self.draft.small(f"{name}.scale", scale), self.draft.small(f"{name}.zero", zero)]
        back = name if plain != name else f"{name}.rounded"
        self.draft.node("QuantizeLinear", [plain, *inputs], [f"{name}.u8"])
        self.draft.node("DequantizeLinear", [f"{name}.u8", *inputs], [back])
        self.draft.aliases[name] = back

    def _static(self, node: onnx.NodeProto) -> None:
        """Weight and bias as integers that are read back; the runtime fuses what stands around the operator."""
        columns = 0 if node.op_type == "Conv" or _turned(node) else 1
        axis = columns if self.recipe.per_channel else None
        weight, scale = self._weight(node.input[1], axis)
        given: dict[str, Any] = {} if axis is None else {"axis": axis}
        zero = self.draft.small(f"{weight}.zero", np.zeros(scale.shape, np.int8))
        self.draft.node(
            "DequantizeLinear",
            [weight, self.draft.small(f"{weight}.scale", scale), zero],
            [f"{key(node)}.weight"],
            **given,
        )
        node.input[1] = f"{key(node)}.weight"
        if len(node.input) > 2 and node.input[2] and self.graph.is_constant(node.input[2]):
            self._static_bias(node, scale)
        self.draft.keep(node)

    def _static_bias(self, node: onnx.NodeProto, scale: NDArray[np.float32]) -> None:
        """In the unit of the products: scale of the activation times scale of the weight."""
        source = node.input[0].removesuffix(".rounded")
        bias = self.graph.constant(node.input[2]).reshape(-1)
        if source not in self.sources or len(bias) != np.size(scale) or not np.size(scale) > 1:
            return
        unit = (scale * scale_and_zero(*self.ranges[self.sources[source]])[0]).astype(np.float32)
        integers = np.rint(bias.astype(np.float64) / unit)
        if np.abs(integers).max() >= 2**31:
            return
        name = f"{key(node)}.bias"
        inputs = [
            self.draft.small(f"{name}.i32", integers.astype(np.int32)),
            self.draft.small(f"{name}.scale", unit),
            self.draft.small(f"{name}.zero", np.zeros(len(bias), np.int32)),
        ]
        self.draft.node("DequantizeLinear", inputs, [name], axis=0)
        node.input[2] = name

    def _weight(self, name: str, axis: int | None, limit: int | None = None) -> tuple[str, NDArray[np.float32]]:
        """The constant as int8, made when it is written, and its scale."""
        limit = limit or self.recipe.limit
        scale = scale_of(self.graph.constant(name), limit=limit, axis=axis)

        def data() -> bytes:
            return quantised(self.graph.constant(name), limit=limit, axis=axis).values.tobytes()

        made = f"{name}.i8" if axis is None else f"{name}.i8.{axis}"
        return self.draft.tensor(made, np.int8, self.graph.shape(name), data), scale

    def _dynamic(self, node: onnx.NodeProto) -> None:
        """y = (integers of x times integers of the weight) * both scales, + bias."""
        activation, scale, zero = self._measured(node.input[0])
        weight, scales = self._matrix(node)
        name = key(node)
        zeros = self.draft.small(f"{weight}.zero", np.zeros(scales.shape, np.int8))
        self.draft.node("MatMulInteger", [activation, weight, zero, zeros], [f"{name}.i32"])
        self.draft.node("Cast", [f"{name}.i32"], [f"{name}.f32"], to=onnx.TensorProto.FLOAT)
        self.draft.node("Mul", [scale, self.draft.small(f"{weight}.scale", scales)], [f"{name}.unit"])
        bias = node.input[2] if len(node.input) > 2 else ""
        self.draft.node("Mul", [f"{name}.f32", f"{name}.unit"], [f"{name}.product" if bias else name])
        if bias:
            self.draft.node("Add", [f"{name}.product", bias], [name])

    def _measured(self, name: str) -> tuple[str, str, str]:
        """The activation as integers, its scale and its zero point; once for all that read it."""
        if name not in self.measured:
            names = (f"{name}.dynamic", f"{name}.dynamic.scale", f"{name}.dynamic.zero")
            self.draft.node("DynamicQuantizeLinear", [name], names)
            self.measured[name] = names
        return self.measured[name]

    def _matrix(self, node: onnx.NodeProto) -> tuple[str, NDArray[np.float32]]:
        """The weight as (depth, columns) of int8, and its scale."""
        name, limit, turned = node.input[1], self.recipe.limit, _turned(node)
        axis = None if not self.recipe.per_channel else 0 if turned else 1
        scale = scale_of(self.graph.constant(name), limit=limit, axis=axis)

        def data() -> bytes:
            values = quantised(self.graph.constant(name), limit=limit, axis=axis).values
            return (values.T if turned else values).tobytes()

        shape = self.graph.shape(name)
        made = f"{name}.i8.turned" if turned else f"{name}.i8.straight"
        return self.draft.tensor(made, np.int8, shape[::-1] if turned else shape, data), scale

    def _gather(self, node: onnx.NodeProto) -> None:
        """A looked-up row is no factor of an integer product, so it has all eight bits on every processor."""
        table, name = node.input[0], key(node)
        weight, scale = self._weight(table, 0 if self.recipe.per_channel else None, limit=FULL)
        self.draft.node("Gather", [weight, node.input[1]], [f"{name}.i8"], axis=0)
        if not self.recipe.per_channel:
            inputs = [
                self.draft.small(f"{weight}.scale", scale),
                self.draft.small(f"{weight}.zero", np.zeros((), np.int8)),
            ]
            self.draft.node("DequantizeLinear", [f"{name}.i8", *inputs], [name])
            return
        scales = self.draft.small(f"{weight}.scale", scale.reshape(-1, 1))
        self.draft.node("Gather", [scales, node.input[1]], [f"{name}.unit"], axis=0)
        self.draft.node("Cast", [f"{name}.i8"], [f"{name}.f32"], to=onnx.TensorProto.FLOAT)
        self.draft.node("Mul", [f"{name}.f32", f"{name}.unit"], [name])

    def _lstm(self, node: onnx.NodeProto) -> None:
        """(directions, 4 hidden, inputs) becomes (directions, inputs, 4 hidden): as DynamicQuantizeLSTM reads it."""
        given = {entry.name: onnx.helper.get_attribute_value(entry) for entry in node.attribute}
        given.pop("layout", None)
        inputs = [*node.input, *[""] * (8 - len(node.input))]
        parameters = []
        for position in (1, 2):
            name, weight = inputs[position], self.graph.constant(inputs[position])
            values, scale = _turned_gates(weight, self.recipe)
            inputs[position] = self.draft.small(f"{name}.i8.gates", values)
            parameters += [
                self.draft.small(f"{name}.gates.scale", scale),
                self.draft.small(f"{name}.gates.zero", np.zeros(scale.shape, np.int8)),
            ]
        self.draft.node("DynamicQuantizeLSTM", [*inputs, *parameters], node.output, MICROSOFT, **given)

    def _blocks(self, node: onnx.NodeProto) -> None:
        name, bits, block = node.input[1], self.recipe.bits, BLOCK[self.recipe.bits]
        shape = self.graph.shape(name)
        columns, depth = shape if _turned(node) else shape[::-1]
        made = in_blocks(self._columns(node), bits=bits, block=block)
        packed = self.draft.small(f"{name}.blocks", made.packed)
        scale = self.draft.small(f"{name}.blocks.scale", made.scale)
        given: dict[str, Any] = {"K": depth, "N": columns, "bits": bits, "block_size": block, "accuracy_level": 4}
        bias = node.input[2] if len(node.input) > 2 else ""
        product = f"{key(node)}.product" if bias else key(node)
        self.draft.node("MatMulNBits", [node.input[0], packed, scale], [product], MICROSOFT, **given)
        if bias:
            self.draft.node("Add", [product, bias], [key(node)])

    def _columns(self, node: onnx.NodeProto) -> Array:
        weight = self.graph.constant(node.input[1])
        return weight if _turned(node) else weight.T


def _turned(node: onnx.NodeProto) -> bool:
    return any(attribute.name == "transB" and attribute.i for attribute in node.attribute)


def _turned_gates(weight: Array, recipe: Recipe) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """weight: (directions, 4 hidden, inputs). Each direction has its own scale, or each of its rows."""
    axis = 0 if recipe.per_channel else None
    made = [quantised(direction, limit=recipe.limit, axis=axis) for direction in weight]
    values = np.stack([part.values.T for part in made])
    return np.ascontiguousarray(values), np.stack([part.scale for part in made])
