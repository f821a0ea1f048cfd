"""What the onnxruntime of this interpreter reads, in its own words: `python bench/onnxruntimes.py`.

packhouse/spec/onnxruntimes.py holds what its releases read. To ask an older one, without changing what is installed:

    pip install --no-deps --target old 'onnxruntime==1.17.*'
    pip install --target old 'numpy<2'                           # before 1.19
    PYTHONPATH=old python bench/onnxruntimes.py

`--smallest` is taken, as by every bench, and changes nothing.
With a file behind it, that file is opened, and the line says whether this release reads it. With `golden.safetensors`
behind that, it also runs every case and prints the largest difference from the trained model's answers.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

# Field numbers and wire types of onnx.proto: such a model needs no onnx, which has other needs than an old runtime.
_DOMAIN, _VERSION, _IR, _OPSETS, _GRAPH = 1 << 3 | 2, 2 << 3, 1 << 3, 8 << 3 | 2, 7 << 3 | 2
FAR = 99


def main(arguments: list[str]) -> None:
    onnxruntime.set_default_logger_severity(4)
    words = opened(*arguments) if arguments else (*said(), *late())
    print(f"onnxruntime {onnxruntime.__version__}:", *words)


def said() -> Iterator[str]:
    """A model of far too new a version is refused with the newest that is read."""
    for name, data, pattern in (
        ("opset", _model(ir=8, opset=FAR), r"till opset (\d+)"),
        ("ml", _model(ir=8, opset=17, ml=FAR), r"till opset (\d+)"),
        ("ir", _model(ir=FAR, opset=17), r"max supported IR version: (\d+)"),
    ):
        try:
            onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
        except Exception as error:  # the runtime's own words are the answer
            found = re.search(pattern, str(error))
            yield f"{name} {found[1] if found else error}"


def late() -> Iterator[str]:
    """Operators whose version in an opset that this release reads has no kernel on the CPU, though an older one has.
    It reads such a file and can not run it. Before 1.17 a release does not tell."""
    import onnxruntime.capi.onnxruntime_pybind11_state as state

    if not hasattr(state, "get_all_opkernel_def"):
        yield "and does not say which operators it has"
        return
    kernels: dict[str, list[tuple[int, int]]] = {}
    for kernel in state.get_all_opkernel_def():
        if kernel.provider == "CPUExecutionProvider" and kernel.domain in ("", "ai.onnx"):
            kernels.setdefault(kernel.op_name, []).append(tuple(kernel.version_range))
    wanted = {(entry.name, entry.since_version) for entry in state.get_all_operator_schema() if entry.domain == ""}
    for name, since in sorted(wanted):
        if since > FIRST_OPSET and not any(_has(since, *range) for range in kernels.get(name, [])) and name in kernels:
            yield f"no {name} of opset {since};"


FIRST_OPSET = 18
"""The oldest that packhouse writes."""


def _has(since: int, first: int, last: int) -> bool:
    return first == since if last == 2**31 - 1 else first <= since <= last


def opened(model: str, golden: str = "") -> Iterator[str]:
    try:
        session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime's own words are the answer
        yield f"does not read {model}: {error}"
        return
    yield f"reads {Path(model).name}"
    if golden:
        yield f"and answers, off by at most {max(_differences(session, Path(golden))):.3g}"


def _differences(session: Any, golden: Path) -> Iterator[float]:
    tensors, names = _safetensors(golden)
    for number in range(len(names)):
        feed = {entry.name: tensors[f"{number}.in.{entry.name}"] for entry in session.get_inputs()}
        outputs = [entry.name for entry in session.get_outputs()]
        for name, answer in zip(outputs, session.run(None, feed), strict=True):
            yield float(np.abs(answer - tensors[f"{number}.out.{name}"]).max())


DTYPES = {"F32": np.float32, "F64": np.float64, "F16": np.float16, "I64": np.int64, "I32": np.int32, "BOOL": np.bool_}


def _safetensors(path: Path) -> tuple[dict[str, Any], list[str]]:
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    names = json.loads(header.pop("__metadata__")["cases"])
    read = {
        name: np.frombuffer(data[start + begin : start + end], DTYPES[entry["dtype"]]).reshape(entry["shape"])
        for name, entry in header.items()
        for begin, end in [entry["data_offsets"]]
    }
    return read, names


def _model(*, ir: int, opset: int, ml: int = 0) -> bytes:
    """An empty graph."""
    opsets = _field(_OPSETS, bytes([_VERSION, opset]))
    if ml:
        opsets += _field(_OPSETS, _field(_DOMAIN, b"ai.onnx.ml") + bytes([_VERSION, ml]))
    return bytes([_IR, ir]) + _field(_GRAPH, _field(2 << 3 | 2, b"g")) + opsets


def _field(key: int, value: bytes) -> bytes:
    return bytes([key, len(value)]) + value


if __name__ == "__main__":
    main([word for word in sys.argv[1:] if word != "--smallest"])
