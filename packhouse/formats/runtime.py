"""The formats' runtimes: opens a released file and runs it. Needs onnxruntime or torch, and never the model's class.

Opens only files whose digest was checked: TorchScript and torch.export programs are code.
"""

from __future__ import annotations

import json
import os
import re
import warnings
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from packhouse.errors import ReleaseInvalid
from packhouse.formats.arrays import Array, Outputs
from packhouse.formats.table import load, row

if TYPE_CHECKING:
    import onnxruntime
    import torch

Runner = Callable[[Mapping[str, Array]], Outputs]
"""Takes name -> array of every input, gives name -> array of every output, in the model's order."""


Vocabularies = Mapping[str, Sequence[str]]
"""Inputs that ONNX takes as text -> what their codes stand for: the code is the position."""


def open_format(
    format: str, path: Path, *, outputs: Sequence[str], text: Vocabularies | None = None, threads: int = 1
) -> Runner:
    """Opens a format by the runtime that its row in the table names.

    Args:
        format: Its name.
        path: The file that is opened; others of the format lie beside it.
        outputs: The names that a runtime without names of its own gives to the outputs, in order.
        text: The inputs that ONNX takes as text, and what their codes stand for.
        threads: Of one call.

    Returns:
        The runner.

    Raises:
        Exception: Whatever the runtime raises on a file that it can not load; the caller names the file.
    """
    opened: Runner = load(row(format).runtime)(path, outputs=outputs, text=text or {}, threads=threads)
    return opened


def open_onnx(path: Path, *, outputs: Sequence[str], text: Vocabularies, threads: int) -> Runner:
    """A session has its own names of outputs."""
    return onnx_runner(onnx_session(path, threads), text)


def onnx_session(path: Path, threads: int) -> onnxruntime.InferenceSession:
    """threads: of one call; 0: as ONNX Runtime thinks."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read at import: a thread, and a file in the home folder
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads, options.log_severity_level = threads, 1, 3
    if threads > 1:
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def onnx_runner(session: onnxruntime.InferenceSession, text: Vocabularies) -> Runner:
    """Where the session takes text, codes are given as what they stand for; text goes in as it is."""
    names = [output.name for output in session.get_outputs()]
    taken = {entry.name for entry in session.get_inputs()}

    def run(inputs: Mapping[str, Array]) -> Outputs:
        # A graph drops an input that nothing depends on.
        given = as_text(inputs, text)
        feed = {name: np.ascontiguousarray(array) for name, array in given.items() if name in taken}
        return dict(zip(names, session.run(None, feed), strict=True))

    return run


def as_text(inputs: Mapping[str, Array], text: Vocabularies) -> dict[str, Array]:
    """The inputs with every code replaced by what it stands for; one that stands for nothing, by text without one."""
    return {
        name: _worded(array.astype(np.int64), text[name]) if name in text and array.dtype != object else array
        for name, array in inputs.items()
    }


def _worded(codes: npt.NDArray[np.int64], values: Sequence[str]) -> Array:
    other = "?"
    while other in values:
        other += "?"
    words = np.array([*values, other], dtype=object)
    return np.asarray(words[np.where((codes >= 0) & (codes < len(values)), codes, len(values))])


def open_torchscript(path: Path, *, outputs: Sequence[str], text: Vocabularies, threads: int) -> Runner:
    """Takes codes where ONNX takes text."""
    import torch

    torch.set_num_threads(threads)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        module = torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]
    module.eval()
    return torch_runner(module, outputs)


def open_program(path: Path, *, outputs: Sequence[str], text: Vocabularies, threads: int) -> Runner:
    """Takes codes where ONNX takes text. Raises ReleaseInvalid: see `refuse_pickles`."""
    import torch

    refuse_pickles(path)
    torch.set_num_threads(threads)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # FutureWarnings of torch's own loader
        return torch_runner(torch.export.load(str(path)).module(), outputs)


def refuse_pickles(path: Path) -> None:
    """A .pt2 can carry pickles, and expressions that torch.export.load evaluates as Python; those that packhouse
    writes carry sizes such as `2*s31` and nothing else.

    Raises ReleaseInvalid: it has example inputs, custom objects or weights that are pickled, or another expression.
    """
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            name = entry.filename.split("/", 1)[-1]
            if name.endswith("_config.json"):
                pickled = _pickled(archive.read(entry), f"{path.name}: {name}")
            else:
                plain = name.startswith(("data/weights/weight_", "data/constants/tensor_")) or name in _PT2_PLAIN
                pickled = [] if plain or not entry.file_size else [name]
            if pickled:
                raise ReleaseInvalid("PH-0195 carries a pickle", where=f"{path.name}: {pickled[0]}")
            if name == _PT2_GRAPH:
                _refuse_expressions(archive.read(entry), path.name)


def _pickled(data: bytes, where: str) -> list[str]:
    """The tensors that a payload config says are pickles."""
    try:
        config = json.loads(data)["config"]
        return [str(key) for key, value in config.items() if value["use_pickle"] is not False]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ReleaseInvalid("PH-0194 is not a config of payloads", where=where) from error


def _refuse_expressions(graph: bytes, where: str) -> None:
    """torch gives every `expr_str` to sympy, which evaluates it. Read as JSON: a key may be written with escapes."""

    def look(pairs: list[tuple[str, Any]]) -> None:
        for key, value in pairs:
            if key == "expr_str" and not (isinstance(value, str) and _SIZE.fullmatch(value)):
                raise ReleaseInvalid("PH-0192 carries an expression that is no size", where=where, got=str(value)[:80])

    try:
        json.loads(graph, object_pairs_hook=look)
    except (ValueError, RecursionError) as error:
        raise ReleaseInvalid("PH-0193 is not a graph", where=f"{where}: {_PT2_GRAPH}") from error


_SIZE = re.compile(
    r"(?:[su]\d+|\d+|Symbol\('[su]\d+'(?:, (?:positive|integer|nonnegative|real)=(?:True|False))*\)"
    r"|(?:Mod|FloorDiv|Max|Min|CleanDiv|PythonMod|ModularIndexing|CeilToInt|FloorToInt|IntTrueDiv|Integer|Pow|Add|Mul)"
    r"|[-+*/%(), ])*+"  # possessive: a text that does not fit is given up at once
)
"""Sizes as torch 2.13 writes them: symbols, integers, arithmetic and torch's own functions on sizes."""

_PT2_GRAPH = "models/model.json"
_PT2_PLAIN = {_PT2_GRAPH, "archive_format", "archive_version", "byteorder", "version", ".data/version"}


def torch_runner(module: Callable[..., Any], outputs: Sequence[str]) -> Runner:
    """Runs any torch callable: inputs by position, outputs flattened in the order of torch's own pytree."""
    import torch

    def run(inputs: Mapping[str, Array]) -> Outputs:
        with torch.inference_mode():
            answer = module(*(as_tensor(array) for array in inputs.values()))
        flat = [part for part in torch.utils._pytree.tree_flatten(answer)[0] if isinstance(part, torch.Tensor)]
        names = outputs if len(flat) == len(outputs) else [f"output_{number}" for number in range(len(flat))]
        return {name: tensor.detach().numpy() for name, tensor in zip(names, flat, strict=True)}

    return run


def as_tensor(array: Array) -> torch.Tensor:
    """A tensor with its own memory: mapped arrays are read-only, which torch does not know."""
    import torch

    return torch.from_numpy(np.array(array))
