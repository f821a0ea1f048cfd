"""The bare sequence that packhouse is measured against: what a script does without it, in one process.

`python bench/bare.py SOURCE FOLDER`: builds the model, loads the weights, and makes the same files with the
libraries' own calls, each compared on one batch: ONNX, TorchScript, torch.export program, INT8 of both.
No hashes, no sandbox, no float64, no latency, no upload, no manifest.
"""

from __future__ import annotations

import logging
import sys
import warnings
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.quantization.shape_inference import quant_pre_process
from safetensors.torch import load_file
from torch.export._patches import register_lstm_while_loop_decomposition

from packhouse.architectures import registry
from packhouse.spec.model import Want, parse

warnings.simplefilter("ignore")
logging.disable(logging.WARNING)


def main(source: Path, out: Path) -> None:
    spec = parse((source / "package.toml").read_bytes())
    model = registry.build(spec.architecture.name, spec.architecture.arguments)
    model.load_state_dict(load_file(source / spec.weights.file), strict=False)
    samples = load_file(source / spec.samples.file)
    inputs = {tensor.name: samples[f"evaluation.{tensor.name}"][:2] for tensor in spec.inputs}
    example = tuple(inputs.values())
    feed = {name: tensor.numpy() for name, tensor in inputs.items()}
    names = [tensor.name for tensor in spec.inputs]
    axes = {
        tensor.name: {place: axis for place, axis in enumerate(tensor.shape) if isinstance(axis, str)}
        for tensor in spec.inputs
    }
    with torch.no_grad():
        expected = model(*example).numpy()

        torch.onnx.export(
            model, example, str(out / "model.onnx"), dynamo=True, input_names=names, verbose=False, external_data=False,
            dynamic_shapes=tuple(axes.values()), opset_version=spec.formats.onnx_opset,
        )  # fmt: skip
        compare("onnx", expected, onnx_run(out / "model.onnx", feed))

        save_traced(model, example, out / "model.ts")
        compare("torchscript", expected, torchscript_run(out / "model.ts", example))

        if spec.formats.program is not Want.OFF:
            shapes = tuple(dict.fromkeys(places, torch.export.Dim.DYNAMIC) for places in axes.values())
            for operator in (torch.ops.aten.lstm.input, torch.ops.aten.gru.input):
                operator._dispatch_cache.clear()
            with register_lstm_while_loop_decomposition():
                program = torch.export.export(model, example, dynamic_shapes=shapes)
            torch.export.save(program, str(out / "model.pt2"))
            loaded = torch.export.load(str(out / "model.pt2")).module()
            compare("program", expected, loaded(*example).numpy())

        quant_pre_process(str(out / "model.onnx"), str(out / "folded.onnx"), skip_symbolic_shape=True)
        quantize_dynamic(str(out / "folded.onnx"), str(out / "model.int8.onnx"), weight_type=QuantType.QInt8)
        compare("onnx-int8", expected, onnx_run(out / "model.int8.onnx", feed), 1.0)

        layers = {torch.nn.Linear, torch.nn.LSTM, torch.nn.GRU}
        quantised = torch.ao.quantization.quantize_dynamic(model, layers, dtype=torch.qint8)  # type: ignore[no-untyped-call]
        save_traced(quantised, example, out / "model.int8.ts")
        compare("torchscript-int8", expected, torchscript_run(out / "model.int8.ts", example), 1.0)


def onnx_run(path: Path, feed: dict[str, np.ndarray]) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, feed)[0])


def save_traced(model: torch.nn.Module, example: tuple[torch.Tensor, ...], path: Path) -> None:
    traced = torch.jit.trace(model, example, check_trace=False)  # type: ignore[no-untyped-call]
    torch.jit.save(traced, str(path))


def torchscript_run(path: Path, example: tuple[torch.Tensor, ...]) -> np.ndarray:
    loaded = torch.jit.load(str(path))  # type: ignore[no-untyped-call]
    return np.asarray(loaded(*example).numpy())


def compare(name: str, expected: np.ndarray, got: np.ndarray, atol: float = 1e-3) -> None:
    if not np.allclose(expected, got, rtol=1e-3, atol=atol):
        print(f"{name}: differs by {np.abs(expected - got).max()}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
