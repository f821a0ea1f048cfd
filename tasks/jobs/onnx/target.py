"""What reads a finished ONNX file: its opset, IR version and operators against the onnxruntime that the spec names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import onnx

from packhouse.errors import ExportFailed
from packhouse.spec.model import Formats
from packhouse.spec.onnxruntimes import RUNTIMES, Onnx, lacks, oldest, operator
from tasks.jobs.onnx.graph import read

AI_ONNX_ML = "ai.onnx.ml"


def lowered(model: onnx.ModelProto, formats: Formats) -> onnx.ModelProto:
    """With the IR version of the onnxruntime that the spec names, where the exporter gave a newer one. Never below what
    the opset asks for. Without metadata, which came with IR version 10, a graph is written alike from 8 to 14."""
    if formats.onnxruntime:
        needed = onnx.helper.find_min_ir_version_for(list(model.opset_import), ignore_unknown=True)
        model.ir_version = max(needed, min(model.ir_version, RUNTIMES[formats.onnxruntime].ir))
    return model


def read_by(path: Path, formats: Formats, *, where: str) -> Onnx:
    """Raises ExportFailed: the onnxruntime that the spec names does not read this file."""
    model = read(path).model
    versions = {entry.domain or "ai.onnx": int(entry.version) for entry in model.opset_import}
    opset, ml, ir = versions["ai.onnx"], versions.get(AI_ONNX_ML, 0), int(model.ir_version)
    operators = sorted({_named(node, opset) for node in _nodes(model)} - {""})
    if formats.onnxruntime:
        _check(formats.onnxruntime, opset=opset, ml=ml, ir=ir, operators=operators, where=where)
    return Onnx(opset=opset, ir=ir, onnxruntime=oldest(opset=opset, ml=ml, ir=ir, operators=operators))


def _check(version: str, *, opset: int, ml: int, ir: int, operators: list[str], where: str) -> None:
    reads = RUNTIMES[version]
    for name, got, want in (("opset", opset, reads.opset), ("ai.onnx.ml", ml, reads.ml), ("IR version", ir, reads.ir)):
        if got > want:
            what = f"PH-0570 has an {name} that onnxruntime {version} does not read"
            raise ExportFailed(what, where=where, got=str(got), want=f"at most {want}")
    if missing := [name for name in operators if lacks(version, name)]:
        raise ExportFailed(f"PH-0569 has an operator that onnxruntime {version} lacks", where=where, got=missing[0])


def _named(node: onnx.NodeProto, opset: int) -> str:
    bits = next((int(attribute.i) for attribute in node.attribute if attribute.name == "bits"), 4)
    return operator(node.domain, node.op_type, opset=opset, bits=bits)


def _nodes(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    yield from _inside(model.graph.node)
    for function in model.functions:
        yield from _inside(function.node)


def _inside(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    for node in nodes:
        yield node
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                yield from _inside(graph.node)
