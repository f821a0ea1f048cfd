"""An ONNX file as a graph whose large tensors stay in the file until somebody wants them, and its rewriting.

Law: Draft(read(path)) with every node kept writes a file that computes the same. Memory: the graph without its large
tensors, and the one tensor that is being written.
"""

from __future__ import annotations

import mmap
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from packhouse.errors import ExportFailed
from packhouse.formats.arrays import Array
from tasks.jobs.onnx.file import DATA, Payload, strip, write

LARGE_BYTES = 1024
"""Tensors above this size stay in the file."""

MICROSOFT = "com.microsoft"
"""The domain of ONNX Runtime's own operators."""

# Field numbers of onnx.proto.
_MODEL_GRAPH, _GRAPH_INITIALIZER, _TENSOR_RAW_DATA = 7, 5, 9


@dataclass
class Graph:
    """model: without the tensors in `large`. folded: what constant nodes were computed to."""

    model: onnx.ModelProto
    large: dict[str, Payload]
    folded: dict[str, Array] = field(default_factory=dict)

    def __post_init__(self) -> None:
        graph = self.model.graph
        self.nodes = list(graph.node)
        self.inputs = [entry.name for entry in graph.input]
        self.outputs = [entry.name for entry in graph.output]
        self.producers = {output: node for node in self.nodes for output in node.output if output}
        self.readers = {name: node for node in reversed(self.nodes) for name in node.input if name}
        self.uses = Counter(name for node in self.nodes for name in used(node))
        self._small = {tensor.name: tensor for tensor in graph.initializer}

    @property
    def opset(self) -> int:
        return next(int(entry.version) for entry in self.model.opset_import if entry.domain in ("", "ai.onnx"))

    def is_constant(self, name: str) -> bool:
        node = self.producers.get(name)
        given = name in self.large or name in self._small or name in self.folded
        return given or (node is not None and node.op_type == "Constant" and node.attribute[0].name == "value")

    def reader(self, name: str) -> onnx.NodeProto | None:
        """The first node that reads the tensor."""
        return self.readers.get(name)

    def is_float(self, name: str) -> bool:
        """Of a constant."""
        if name in self.large:
            return self.large[name].dtype == onnx.TensorProto.FLOAT
        return self.constant(name).dtype == np.float32

    def shape(self, name: str) -> tuple[int, ...]:
        """Of a constant."""
        return self.large[name].shape if name in self.large else self.constant(name).shape

    def constant(self, name: str) -> Array:
        """Read from the file each time, so that no tensor stays in memory longer than its reader needs it."""
        if name in self.folded:
            return self.folded[name]
        if name in self.large:
            return array(self.large[name])
        tensor = self._small[name] if name in self._small else self.producers[name].attribute[0].t
        return np.asarray(numpy_helper.to_array(tensor))


def array(payload: Payload) -> Array:
    dtype = onnx.helper.tensor_dtype_to_np_dtype(payload.dtype)
    return np.frombuffer(payload.data(), dtype).reshape(payload.shape)


def used(node: onnx.NodeProto) -> Iterator[str]:
    """The names that a node reads, those in its subgraphs included."""
    yield from (name for name in node.input if name)
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            for inner in graph.node:
                yield from used(inner)
            yield from (entry.name for entry in graph.output)


def read(path: Path) -> Graph:
    """Parses the file without loading its large tensors."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        head, graph, large = bytearray(), bytearray(), {}
        for entry in _fields(data, 0, len(data)):
            if entry.number != _MODEL_GRAPH:
                head += data[entry.start : entry.end]
                continue
            for inner in _fields(data, entry.begin, entry.end):
                payload = _payload(path, data, inner) if inner.number == _GRAPH_INITIALIZER else None
                if payload:
                    large[payload.name] = payload
                else:
                    graph += data[inner.start : inner.end]
    model = onnx.ModelProto.FromString(bytes(head))
    model.graph.MergeFromString(bytes(graph))
    return Graph(model, large)


@dataclass(frozen=True)
class _Field:
    """start: of its key; begin: of its value."""

    number: int
    start: int
    begin: int
    end: int


def _fields(data: mmap.mmap, start: int, end: int) -> Iterator[_Field]:
    while start < end:
        key, begin = _varint(data, start)
        match key & 7:
            case 0:
                stop = _varint(data, begin)[1]
            case 1:
                stop = begin + 8
            case 2:
                length, begin = _varint(data, begin)
                stop = begin + length
            case _:
                stop = begin + 4
        yield _Field(key >> 3, start, begin, stop)
        start = stop


def _varint(data: mmap.mmap, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        value, shift, position = value | (byte & 0x7F) << shift, shift + 7, position + 1
        if byte < 0x80:
            return value, position


def _payload(path: Path, data: mmap.mmap, tensor: _Field) -> Payload | None:
    """None: a tensor that is small, or whose values are not raw bytes, stays in the graph."""
    if tensor.end - tensor.begin <= LARGE_BYTES:
        return _apart(path, onnx.TensorProto.FromString(data[tensor.begin : tensor.end]))
    head, raw = bytearray(), None
    for entry in _fields(data, tensor.begin, tensor.end):
        if entry.number == _TENSOR_RAW_DATA:
            raw = entry
        else:
            head += data[entry.start : entry.end]
    if raw is None:
        return None
    parsed = onnx.TensorProto.FromString(bytes(head))
    size = raw.end - raw.begin
    return Payload(parsed.name, parsed.data_type, tuple(parsed.dims), _reader(path, raw.begin, size), size)


def _apart(path: Path, tensor: onnx.TensorProto) -> Payload | None:
    """A tensor whose bytes lie in the file beside."""
    if tensor.data_location != onnx.TensorProto.EXTERNAL:
        return None
    place = {entry.key: entry.value for entry in tensor.external_data}
    if place.get("location") != path.name + DATA:
        raise ExportFailed(
            "PH-0567 names another file than its own for data", where=path.name, got=str(place.get("location"))
        )
    size = int(place["length"])
    data = _reader(path.with_name(path.name + DATA), int(place["offset"]), size)
    return Payload(tensor.name, tensor.data_type, tuple(tensor.dims), data, size)


def _reader(path: Path, begin: int, size: int) -> Callable[[], bytes]:
    def data() -> bytes:
        with path.open("rb") as file:
            file.seek(begin)
            return file.read(size)

    return data


class Draft:
    """A graph that is being rewritten: nodes are appended in their order, tensors are made when they are written."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.nodes: list[onnx.NodeProto] = []
        self.outputs: list[str] = []
        self.made: dict[str, Payload] = {}
        self.aliases: dict[str, str] = {}

    def node(
        self, operator: str, inputs: Iterable[str], outputs: Iterable[str], domain: str = "", **attributes: Any
    ) -> None:
        made = onnx.helper.make_node(operator, list(inputs), list(outputs), domain=domain, **attributes)
        made.attribute.sort(key=lambda attribute: str(attribute.name))
        self.nodes.append(made)

    def keep(self, node: onnx.NodeProto) -> None:
        self.nodes.append(node)

    def small(self, name: str, value: Array) -> str:
        """A new constant."""
        data = np.ascontiguousarray(value).tobytes()
        return self.tensor(name, value.dtype, value.shape, lambda: data)

    def tensor(self, name: str, dtype: Any, shape: tuple[int, ...], data: Callable[[], bytes]) -> str:
        """A new constant whose bytes are made when they are written. The same name is the same tensor."""
        kind = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        self.made.setdefault(name, Payload(name, kind, shape, data, size))
        return name

    def save(self, path: Path) -> None:
        """Without what nothing reads any more."""
        model = onnx.ModelProto()
        model.CopyFrom(self.graph.model)
        needed = {entry.name for entry in model.graph.output} | set(self.outputs)
        kept: list[onnx.NodeProto] = []
        for node in reversed(self.nodes):
            if needed.intersection(node.output) and not set(node.output) & set(self.graph.folded):
                needed.update(used(node))
                kept.append(node)
        del model.graph.node[:]
        model.graph.node.extend(reversed(kept))
        model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in self.outputs)
        self._keep_tensors(model, needed)
        if any(node.domain == MICROSOFT for node in kept) and all(e.domain != MICROSOFT for e in model.opset_import):
            model.opset_import.append(onnx.helper.make_opsetid(MICROSOFT, 1))
        del model.graph.value_info[:]
        folded = {name: _as_payload(name, value) for name, value in self.graph.folded.items()}
        every = {**folded, **self.graph.large, **self.made}
        write(path, strip(model), [payload for name, payload in every.items() if name in needed])

    def _keep_tensors(self, model: onnx.ModelProto, needed: set[str]) -> None:
        kept = [tensor for tensor in model.graph.initializer if tensor.name in needed]
        del model.graph.initializer[:]
        model.graph.initializer.extend(kept)


def _as_payload(name: str, value: Array) -> Payload:
    kind = onnx.helper.np_dtype_to_tensor_dtype(value.dtype)
    return Payload(name, kind, value.shape, lambda: np.ascontiguousarray(value).tobytes(), value.nbytes)
