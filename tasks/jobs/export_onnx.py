"""ONNX: by torch.export where it can, by way of TorchScript where the model branches on its data."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import onnx
import onnxscript.ir as ir
import torch

from packhouse.digest import MiB
from packhouse.errors import ExportFailed
from packhouse.spec.model import Spec
from packhouse.spec.onnxruntimes import INLINE_BYTES
from tasks.jobs import model as models
from tasks.jobs.export_torchscript import script
from tasks.jobs.exporters import first_line, forget_rnn_dispatch
from tasks.jobs.onnx.file import DATA, Payload, strip, write
from tasks.jobs.onnx.opset import NEWEST, to_opset_17
from tasks.jobs.onnx.target import lowered, read_by
from tasks.jobs.onnx.text import take_text

SMALL_TENSOR_BYTES = 1024
"""Tensors up to this size stay in the protobuf message; larger ones are streamed into the file behind it."""


def run(
    *, spec: str, weights: str, samples: str, out: str, program: str = "", most: int = INLINE_BYTES
) -> dict[str, Any]:
    """Writes a canonical ONNX file to `out`; where it would have more than `most` bytes, with its weights in a file
    beside it. Returns how it was made, and what reads it: {"exporter", "onnx", "notes"}.

    Raises ExportFailed: neither way works, or the file is not what was asked for.
    """
    parsed = models.read_spec(spec)
    module = models.load(parsed, weights, program)
    example = models.example(parsed, samples)
    notes: list[str] = []
    try:
        exporter = "torch.export"
        _by_export(module, parsed, example, Path(out), most)
    except Exception as error:  # the exporter's errors have no common class; the other way decides
        notes.append(f"torch.export: {first_line(error)}")
        exporter = "script"
        Path(f"{out}{DATA}").unlink(missing_ok=True)  # of a file that was begun
        _by_script(module, parsed, example, Path(out), error)
    check(Path(out), parsed)
    needs = read_by(Path(out), parsed.formats, where="onnx")
    return {"exporter": exporter, "onnx": needs.model_dump(), "notes": notes}


def _by_export(module: torch.nn.Module, spec: Spec, example: dict[str, Any], out: Path, most: int) -> None:
    forget_rnn_dispatch()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module,
            models.tensors(example),
            dynamo=True,
            opset_version=max(spec.formats.onnx_opset, NEWEST),  # what it can not lower, it keeps without a word
            input_names=[tensor.name for tensor in spec.inputs],
            output_names=[tensor.name for tensor in spec.outputs],
            dynamic_shapes=models.as_forward_takes(module, models.dynamic_axes(spec, lambda name, _: name)),
            verbose=False,
        )
    assert program is not None
    graph = program.model.graph
    _give_way(graph, {tensor.name for tensor in (*spec.inputs, *spec.outputs)})
    payloads = []
    for name, value in list(graph.initializers.items()):
        tensor = value.const_value
        assert tensor is not None
        if tensor.nbytes > SMALL_TENSOR_BYTES:
            payloads.append(
                Payload(name, int(tensor.dtype), tuple(tensor.shape.numpy()), tensor.tobytes, tensor.nbytes)
            )
            del graph.initializers[name]
    model = ir.serde.serialize_model(program.model)
    if spec.formats.onnx_opset < NEWEST:
        to_opset_17(model)
    take_text(model, spec.text, (payload.name for payload in payloads))
    write(out, lowered(strip(model), spec.formats), payloads, most=most)


def _give_way(graph: ir.Graph, taken: set[str]) -> None:
    """Nothing inside has the name of an input or output: the exporter names those without looking, and a parameter
    may be called so."""
    outside = {id(value) for value in (*graph.inputs, *graph.outputs)}
    inside = [*graph.initializers.values(), *(value for node in graph.all_nodes() for value in node.outputs)]
    for value in inside:
        if value.name in taken and id(value) not in outside:
            held = graph.initializers.pop(value.name, None) is value
            value.name = f"{value.name}.inside"
            if held:
                graph.initializers[value.name] = value


def _by_script(module: torch.nn.Module, spec: Spec, example: dict[str, Any], out: Path, first: Exception) -> None:
    """TorchScript keeps a branch as a branch, and the older exporter writes it as an ONNX `If`; it is never handed
    a trace, which would freeze the branch in silence."""
    raw = out.with_suffix(".raw")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            torch.onnx.export(
                script(module, models.tensors(example)),
                models.tensors(example),
                str(raw),
                dynamo=False,
                opset_version=spec.formats.onnx_opset,
                input_names=[tensor.name for tensor in spec.inputs],
                output_names=[tensor.name for tensor in spec.outputs],
                dynamic_axes={
                    tensor.name: {position: axis for position, axis in enumerate(tensor.shape) if isinstance(axis, str)}
                    for tensor in (*spec.inputs, *spec.outputs)
                },
            )
        except Exception as error:  # exporters' errors have no common class
            lacking = first if isinstance(first, ExportFailed) else None
            next = "rewrite the branch with torch.where or torch.cond, or make forward scriptable"
            raise ExportFailed(
                f"PH-0546 torch.export: {lacking.what if lacking else first_line(first)}; script: {first_line(error)}",
                where="onnx",
                next=lacking.next if lacking else next,
            ) from error
    if raw.stat().st_size > INLINE_BYTES:
        raise ExportFailed(
            "PH-0545 is larger than one protobuf message may be", where="onnx", want=f"{INLINE_BYTES // MiB} MiB"
        )
    model = onnx.load(raw)
    take_text(model, spec.text)
    write(out, lowered(strip(model), spec.formats), [])
    raw.unlink()


def check(path: Path, spec: Spec) -> None:
    """Opset, names and dynamic axes are those that were asked for, and the checker finds nothing.

    Exporters have been seen to give another opset than asked, and to fix an axis, without a word.
    """
    onnx.checker.check_model(str(path), full_check=True)
    graph = onnx.load(path, load_external_data=False)
    opset = next(entry.version for entry in graph.opset_import if entry.domain in ("", "ai.onnx"))
    if opset != spec.formats.onnx_opset:
        raise ExportFailed(
            "PH-0542 the exporter gave another opset", where="onnx", got=str(opset), want=str(spec.formats.onnx_opset)
        )
    declared = {tensor.name: tensor.shape for tensor in spec.inputs}
    for value in graph.graph.input:
        if (value.type.tensor_type.elem_type == onnx.TensorProto.STRING) != (value.name in spec.text):
            raise ExportFailed(f"PH-0543 input {value.name!r} is not what it must be, text or numbers", where="onnx")
        dimensions = value.type.tensor_type.shape.dim
        for size, dimension in zip(declared.get(value.name, ()), dimensions, strict=False):
            if isinstance(size, str) and spec.axes[size].min != spec.axes[size].max and dimension.HasField("dim_value"):
                raise ExportFailed(
                    f"PH-0544 axis {size!r} of input {value.name!r} is fixed to {dimension.dim_value}", where="onnx"
                )
