"""Writes ONNX files whose bytes depend on the graph and its weights alone, without holding the weights twice.

An ONNX file is one protobuf message, and a message is the concatenation of its fields. So the small graph is
serialised by protobuf and the large tensors are streamed behind it, field by field. Where that would be more than
protobuf reads, they are streamed into one file beside it, whose digest the graph names: docs/onnx.md.
Source: https://protobuf.dev/programming-guides/encoding/ and onnx.proto.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import onnx

from packhouse.errors import ExportFailed
from packhouse.spec.onnxruntimes import INLINE_BYTES

DATA = ".data"
"""What the name of a file of weights ends in, behind the name of its ONNX file."""

ALIGNMENT = 4096
"""Offsets in such a file, in bytes, so that a runtime can map a tensor. Source: https://onnx.ai/onnx/repo-docs/ExternalData.html"""

DATA_DIGEST = "data.sha256"
"""The key of a model's metadata with the digest of that file: the digest of the ONNX file then covers both."""

# Field numbers of onnx.proto, with wire type 2 (length-delimited).
_MODEL_GRAPH = 7 << 3 | 2
_GRAPH_INITIALIZER = 5 << 3 | 2
_TENSOR_RAW_DATA = 9 << 3 | 2


@dataclass(frozen=True)
class Payload:
    """A large initializer. dtype: onnx.TensorProto.DataType. data: little-endian bytes, `size` of them, made when
    they are needed."""

    name: str
    dtype: int
    shape: tuple[int, ...]
    data: Callable[[], bytes]
    size: int


def write(path: Path, model: onnx.ModelProto, payloads: Sequence[Payload], *, most: int = INLINE_BYTES) -> None:
    """Writes `model` with `payloads` as further initializers of its graph, in the order of their names. most: bytes of
    the file; where it would have more, the payloads go into one of their own beside it.

    Raises ExportFailed: the graph alone is larger than protobuf can read.
    """
    heads = [(payload, _tensor_head(payload)) for payload in sorted(payloads, key=lambda payload: payload.name)]
    graph = model.graph.SerializeToString(deterministic=True)
    lengths = [len(head) + payload.size for payload, head in heads]
    graph_length = len(graph) + sum(1 + len(_varint(length)) + length for length in lengths)
    rest = onnx.ModelProto()
    rest.CopyFrom(model)
    rest.ClearField("graph")
    head = rest.SerializeToString(deterministic=True) + bytes([_MODEL_GRAPH]) + _varint(graph_length)
    if len(head) + graph_length > most:
        _write_apart(path, model, [payload for payload, _ in heads])
        return
    with path.open("wb") as file:
        file.write(head)
        file.write(graph)
        for (payload, tensor_head), length in zip(heads, lengths, strict=True):
            _write_tensor(file, payload, tensor_head, length)


def _write_apart(path: Path, model: onnx.ModelProto, payloads: Sequence[Payload]) -> None:
    name = path.name + DATA
    whole, digest = onnx.ModelProto(), hashlib.sha256()
    whole.CopyFrom(model)
    with path.with_name(name).open("wb") as file:
        for payload in payloads:
            digest.update(padding := bytes(-file.tell() % ALIGNMENT))
            file.write(padding)
            _describe(whole.graph.initializer.add(), payload, {"location": name, "offset": file.tell()})
            data = _bytes(payload)
            digest.update(data)
            file.write(data)
    whole.metadata_props.add(key=DATA_DIGEST, value=digest.hexdigest())
    text = whole.SerializeToString(deterministic=True)
    if len(text) > INLINE_BYTES:
        got, want = f"{len(text):,} bytes", f"{INLINE_BYTES:,}"
        raise ExportFailed("PH-0545 is larger than one protobuf message may be", where="onnx", got=got, want=want)
    path.write_bytes(text)


def _describe(tensor: onnx.TensorProto, payload: Payload, place: Mapping[str, object]) -> None:
    tensor.name, tensor.data_type, tensor.data_location = payload.name, payload.dtype, onnx.TensorProto.EXTERNAL
    tensor.dims.extend(payload.shape)
    for key, value in (*place.items(), ("length", payload.size)):
        tensor.external_data.add(key=key, value=str(value))


def _bytes(payload: Payload) -> bytes:
    data = payload.data()
    if len(data) != payload.size:
        raise ExportFailed(
            f"PH-0566 tensor {payload.name!r} has {len(data)} bytes, its shape says {payload.size}", where="onnx"
        )
    return data


def _tensor_head(payload: Payload) -> bytes:
    tensor = onnx.TensorProto(name=payload.name, data_type=payload.dtype, dims=payload.shape)
    head: bytes = tensor.SerializeToString(deterministic=True)
    return head + bytes([_TENSOR_RAW_DATA]) + _varint(payload.size)


def _write_tensor(file: BinaryIO, payload: Payload, head: bytes, length: int) -> None:
    file.write(bytes([_GRAPH_INITIALIZER]) + _varint(length) + head)
    file.write(_bytes(payload))


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def strip(model: onnx.ModelProto) -> onnx.ModelProto:
    """Takes out, in place, what says where and when and not what: doc strings and metadata, which hold stack traces
    with local paths."""
    _forget(model)
    _strip_graph(model.graph)
    for function in model.functions:
        _forget(function)
        _strip_nodes(function.node)
        _forget_all(function.value_info)
    return model


def _strip_graph(graph: onnx.GraphProto) -> None:
    _forget(graph)
    _strip_nodes(graph.node)
    for group in (graph.initializer, graph.input, graph.output, graph.value_info):
        _forget_all(group)
    ordered = sorted(graph.initializer, key=lambda tensor: tensor.name)
    del graph.initializer[:]
    graph.initializer.extend(ordered)


def _strip_nodes(nodes: Iterable[onnx.NodeProto]) -> None:
    for node in nodes:
        _forget(node)
        for attribute in node.attribute:
            attribute.doc_string = ""
            if attribute.HasField("g"):
                _strip_graph(attribute.g)
            for graph in attribute.graphs:
                _strip_graph(graph)
            if attribute.HasField("t"):
                _forget(attribute.t)


def _forget_all(entries: Iterable[Any]) -> None:
    for entry in entries:
        _forget(entry)


def _forget(entry: Any) -> None:
    entry.doc_string = ""
    del entry.metadata_props[:]
