"""OpenVINO IR as a format of packhouse: made of the ONNX file, run on the CPU in fp32. docs/formats.md explains it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

FORMAT = {
    "files": ("model.xml", "model.bin"),
    "media_type": "application/vnd.openvino.ir",
    "made_from": "onnx",
    "job": "packhouse_openvino:run",
    "runtime": "packhouse_openvino:open_model",
    "session": "packhouse_openvino:compile_model",
    "requires": ("openvino",),
    "way": "converted",
}
"""packhouse reads this dictionary without importing the module: it holds plain values."""

UNKNOWN = re.compile(r"No conversion rule found for operations: (.+)")


def run(*, model: Path, out: Path, options: Mapping[str, Any], **_: Any) -> dict[str, Any]:
    """Converts the ONNX file `model` to `out`, and to a file of the same name with the ending `.bin`."""
    import openvino

    if options:
        raise ValueError(f"there is no option {next(iter(options))!r}")
    try:
        graph = openvino.Core().read_model(model)
    except RuntimeError as error:
        if lacking := UNKNOWN.search(str(error)):
            raise ValueError(f"OpenVINO can not read the operator {lacking[1].strip()}") from error
        raise
    openvino.save_model(graph, out, compress_to_fp16=False)
    return {"runtime": {"openvino": openvino.__version__.split("-")[0]}}


def compile_model(path: Path, threads: int) -> Any:
    """An openvino.CompiledModel. threads: 0: as OpenVINO likes."""
    import openvino

    # Some processors would compute in bfloat16 without the hint.
    options: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": 1}
    if threads:
        options["INFERENCE_NUM_THREADS"] = threads
    return openvino.Core().compile_model(path, "CPU", options)


def open_model(
    path: Path, *, outputs: Sequence[str], text: Mapping[str, Sequence[str]], threads: int
) -> Callable[[Mapping[str, Any]], Mapping[str, Any]]:
    """Takes and gives arrays by name. text: for formats that take text; this one takes codes."""
    model = compile_model(path, threads)
    known = {name for port in model.inputs for name in port.get_names()}

    def answer(inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        found = model({name: np.ascontiguousarray(array) for name, array in inputs.items() if name in known})
        return {name: np.array(found[place]) for place, name in enumerate(outputs)}

    return answer
