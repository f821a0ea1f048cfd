"""The session: ONNX Runtime on the file that is served, and the golden cases that it must still answer."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read at import: a thread, and a file in the home folder
import onnxruntime
from onnxruntime.capi.onnxruntime_pybind11_state import InvalidArgument

from packhouse.errors import ReleaseInvalid, squeezed
from packhouse.formats.arrays import Array, Outputs
from packhouse.formats.runtime import as_text
from packhouse.parity.replay import compare, golden_cases
from packhouse.release.manifest import GOLDEN
from packhouse.serving.datatypes import BY_ONNX, Datatype
from packhouse.serving.errors import RequestRefused
from packhouse.serving.io_signature import Contract, contract
from packhouse.serving.release import Served

CUDA = "CUDAExecutionProvider"
CPU = "CPUExecutionProvider"
_DRIVER = Path("/dev/nvidiactl")


def has_cuda() -> bool:
    """Whether this ONNX Runtime can use a GPU and there is one."""
    return CUDA in onnxruntime.get_available_providers() and _DRIVER.exists()


class Model:
    """May be run by several threads at a time. Raises ReleaseInvalid: the file does not load, or has other inputs and
    outputs than the spec."""

    def __init__(self, served: Served, *, threads: int, cuda: bool) -> None:
        self.served = served
        self._session = _session(served.file, threads, cuda)
        inputs, outputs = _datatypes(self._session.get_inputs()), _datatypes(self._session.get_outputs())
        self.contract: Contract = contract(served.spec, served.manifest.release, inputs, outputs)
        self._taken = frozenset(inputs)
        self.outputs: tuple[str, ...] = tuple(outputs)
        declared = {wanted.name for wanted in self.contract.inputs}, {wanted.name for wanted in self.contract.outputs}
        if extra := sorted((self._taken - declared[0]) | (set(self.outputs) ^ declared[1])):
            raise ReleaseInvalid("PH-0484 package.toml and the model differ", where=f"{served.made.file}: {extra[0]}")

    @property
    def providers(self) -> Sequence[str]:
        found: list[str] = self._session.get_providers()
        return found

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Raises RequestRefused: the model itself does not take these values."""
        feed = {name: np.require(array, requirements="C") for name, array in inputs.items() if name in self._taken}
        try:
            return dict(zip(self.outputs, self._session.run(None, feed), strict=True))
        except InvalidArgument as error:  # such as an index outside of a table, where the spec declares no range
            raise RequestRefused("PH-0483 the model does not take these values", got=squeezed(error)) from error

    def refusal(self) -> str:
        """What the golden cases have against it, in one line; empty where it answers as the trained model did."""
        cases = golden_cases(self.served.folder / GOLDEN)
        answers: list[Outputs] = []
        for case in cases:
            try:
                answers.append(self.run(as_text(case.inputs, self.served.manifest.text)))
            except Exception as error:  # whatever this runtime says of a model that another one ran
                return f"case {case.name!r}: does not run: {squeezed(error)}"
        return compare(cases, answers, self.served.made.tolerance).refusal


def _session(file: Path, threads: int, cuda: bool) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 4  # its errors are exceptions too, and its lines repeat what a client sent
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # TF32 keeps 10 bits of a product's 23: other answers than those that were judged.
    providers: list[Any] = [(CUDA, {"use_tf32": "0"})] if cuda else []
    try:
        return onnxruntime.InferenceSession(str(file), options, providers=[*providers, CPU])
    except Exception as error:  # the runtime's own errors have no class of their own
        raise ReleaseInvalid(f"PH-0197 does not load: {squeezed(error)}", where=file.name) from error


def _datatypes(nodes: Sequence[Any]) -> dict[str, Datatype]:
    for node in nodes:
        if node.type not in BY_ONNX:
            raise ReleaseInvalid("PH-0485 has a type that can not be served", where=node.name, got=node.type)
    return {node.name: BY_ONNX[node.type] for node in nodes}
