"""Loads a packhouse release and answers with it: the code of an MLflow pyfunc, by `mlflow.models.set_model`.

This one file and the release's own bytes are the model: no packhouse, no torch, no pickle. No file is parsed before
its sha256 is the one that the manifest names. `model_config` of `mlflow.pyfunc.load_model` takes

    format    auto (INT8 where the release has it and this processor computes it as it was judged), onnx, onnx-int8
    threads   of ONNX Runtime; 0: as many as it likes
    manifest  the digest that manifest.json must have, from somebody whom you trust
"""

from __future__ import annotations

import hashlib
import json
import os
import tomllib
from collections.abc import Iterable, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from mlflow.pyfunc.model import PythonModel

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read at import: a thread, and a file in the home folder

MOST_COLUMNS = 2000
"""Of a table; what is wider goes in as arrays."""
VNNI = frozenset({"avx512_vnni", "avx_vnni"})
INT8, FP32 = "onnx-int8", "onnx"
KNOWN = frozenset({"auto", INT8, FP32, "torchscript", "torchscript-int8", "program"})
NEWEST = 2
"""Of a manifest's schemas, the newest that is read here."""
Document = dict[str, Any]


class Release(PythonModel):
    """A release as an MLflow pyfunc model."""

    _skip_type_hint_validation = True  # or each import warns that `predict` has no annotations

    def load_context(self, context: Any) -> None:
        """Opens the model. MLflow calls it.

        Args:
            context: MLflow's context: the artifact `release`, and `model_config` with `format`, `threads`, `manifest`.

        Raises:
            ValueError: A file is not the one that the manifest names, or this processor can not run the format.
        """
        config, folder = context.model_config or {}, Path(context.artifacts["release"])
        manifest = checked(folder, str(config.get("manifest") or ""))
        spec = tomllib.loads((folder / "package.toml").read_text("utf-8"))
        made = chosen(manifest, str(config.get("format") or "auto"))
        self.format = made["name"]
        self.session = _session(folder / made["files"][0], int(config.get("threads") or 0))
        self.inputs = {entry.name: entry.type for entry in self.session.get_inputs()}
        self.declared = {entry["name"]: entry for entry in spec["inputs"]}
        self.table, self.answers = tables(spec, manifest["text"])

    def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN201
        """Computes the outputs.

        Args:
            context: MLflow's context, which is not used.
            model_input: A DataFrame, whose columns are those of the signature. Or a dict of arrays by input name, (n,
                ...), or the array of an only input.
            params: MLflow's parameters, which are not used.

        Returns:
            For a DataFrame, a DataFrame with its index. Else a dict of arrays by output name.

        Raises:
            ValueError: An input is missing, or has another dtype or shape.
        """
        # Without annotations: MLflow would make a signature of them.
        given = self._arrays(model_input)
        if missing := sorted(self.declared.keys() - given.keys()):
            raise ValueError(f"input {missing[0]!r} is missing; got {sorted(map(str, given))}")
        feed = {name: fitting(given[name], kind, name) for name, kind in self.inputs.items()}
        names = [entry.name for entry in self.session.get_outputs()]
        answer = dict(zip(names, self.session.run(None, feed), strict=True))
        if isinstance(model_input, pd.DataFrame):
            return self._frame(answer, model_input.index)
        return answer

    def _arrays(self, found: Any) -> dict[str, Any]:
        """The inputs by name: of a table the columns that belong to each, side by side."""
        if isinstance(found, pd.DataFrame) or (isinstance(found, Mapping) and not self.declared.keys() <= found.keys()):
            if not self.table:
                raise ValueError(f"this model takes arrays by name, {', '.join(self.declared)}, and no table")
            taken = _all(self.table.values())
            if absent := [each for each in taken if each not in found]:
                raise ValueError(f"column {absent[0]!r} is missing; the model takes {taken}")
            return {name: self._side_by_side(found, name, parts) for name, parts in self.table.items()}
        if isinstance(found, Mapping):
            return {str(name): np.asarray(array) for name, array in found.items()}
        if len(self.declared) != 1:
            raise ValueError(f"one array for several inputs; give a dict of {', '.join(self.declared)}")
        return {next(iter(self.declared)): np.asarray(found)}

    def _side_by_side(self, found: Any, name: str, parts: list[str]) -> Any:
        stacked = np.stack([np.asarray(found[part]) for part in parts], axis=1)
        return stacked if len(self.declared[name]["shape"]) == 2 else stacked[:, 0]

    def _frame(self, answer: Mapping[str, Any], index: Any) -> Any:
        table: dict[str, Any] = {}
        for name, parts in self.answers.items():
            table |= dict(zip(parts, answer[name].reshape(len(index), -1).T, strict=True))
        return pd.DataFrame(table, index=index)


def checked(folder: Path, wanted: str) -> Document:
    """The manifest, once every file that it names and that lies here has its digest. wanted: the manifest's own."""
    data = (folder / "manifest.json").read_bytes()
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    record = json.loads((folder / "record.json").read_bytes())
    for want, of in ((wanted or digest, "model_config"), (record["manifest"], "record.json")):
        if digest != want:
            raise ValueError(f"manifest.json: sha256 differs from that of {of}; got {digest}, want {want}")
    manifest: Document = json.loads(data)
    if (schema := manifest.get("schema", 1)) not in range(1, NEWEST + 1):
        reader = f"packhouse {manifest['needs']}" if isinstance(manifest.get("needs"), str) else "a later packhouse"
        raise ValueError(f"manifest.json: is of schema {schema}, and this reads {NEWEST}: needs a model of {reader}")
    known = {entry["name"]: entry["digest"] for entry in manifest["artifacts"]}
    for path in sorted(folder.iterdir()):
        if path.name in ("manifest.json", "record.json"):
            continue
        if path.is_symlink() or path.name not in known:
            raise ValueError(f"{path.name}: is not in the manifest; somebody put it there")
        with path.open("rb") as file:
            found = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
        if found != known[path.name]:
            raise ValueError(f"{path.name}: sha256 differs; got {found}, want {known[path.name]}; download it again")
    return manifest


def chosen(manifest: Document, wanted: str) -> Document:
    """The format that is run. INT8 is in a release only where it pays; its answers may hang on VNNI."""
    every = [described(made) for made in manifest["formats"]]
    if unknown := [made for made in every if made["name"] == wanted and wanted not in KNOWN]:
        raise ValueError(f"format {wanted!r}: not run: install {unknown[0]['runtime']['name']}")
    have = {made["name"]: made for made in every if made["name"] in (FP32, INT8)}
    if wanted == "auto":
        have = {name: made for name, made in have.items() if made.get("selection", "auto") == "auto"}
    here = {name: made for name, made in have.items() if made["processors"] == "any" or _has_vnni()}
    pick = wanted if wanted != "auto" else (INT8 if INT8 in here else FP32)
    if pick not in here:
        why = "its answers were judged on processors with VNNI" if pick in have else f"the release has {sorted(have)}"
        raise ValueError(f"format {pick!r}: can not be run here: {why}")
    made: Document = here[pick]
    return made


def described(made: Document) -> Document:
    """A format as schema 2 has it, whichever it was written in."""
    if "format" not in made:
        return made
    return made | {"name": made["format"], "files": [name for name in (made["file"], made.get("data")) if name]}


def tables(spec: Document, text: Mapping[str, Any]) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """The columns of a table that hold each input, and each output.

    Args:
        spec: The release's package.toml.
        text: The inputs that are text.

    Returns:
        Name -> columns in their order, of inputs and of outputs. Both are empty if the model has no preprocessing, or
        if an input or output does not fit into a table: then the model takes arrays.
    """
    steps = spec.get("preprocessing", [])
    steps = [steps] if isinstance(steps, dict) else steps
    named = {step["input"]: step["columns"] for step in reversed(steps) if step.get("columns")}
    rows = {entry["shape"][0] if entry["shape"] else 0 for entry in spec["inputs"]}
    inputs = {entry["name"]: _columns(entry, rows, named, entry["name"] in text) for entry in spec["inputs"]}
    outputs = {entry["name"]: _columns(entry, rows, {}, False) for entry in spec["outputs"]}
    for side in (inputs, outputs):
        every = _all(side.values())
        if not steps or not all(side.values()) or len(every) != len(set(every)) or len(every) > MOST_COLUMNS:
            return {}, {}
    return inputs, outputs


def _all(parts: Iterable[list[str]]) -> list[str]:
    return list(chain.from_iterable(parts))


def _columns(tensor: Document, rows: set[Any], named: Mapping[str, list[str]], text: bool) -> list[str]:
    """rows: the axes that the inputs begin with: one, by name, or they can not be stacked."""
    name, shape = tensor["name"], tensor["shape"]
    width = shape[1] if len(shape) == 2 else 1
    known = text or tensor.get("dtype", "float32") in TYPES
    if rows != {shape[0] if shape else 0} or not isinstance(shape[0], str) or len(shape) > 2 or not known:
        return []
    if isinstance(width, str):
        return []
    return list(named.get(name) or ([name] if width == 1 else [f"{name}[{place}]" for place in range(width)]))


TYPES = {"float32": "double", "float64": "double", "int32": "integer", "int64": "long", "bool": "boolean"}
"""What a column of a table is in MLflow, by the input's dtype: Python's floats are of 64 bits."""

_TENSORS = {"float": "float32", "double": "float64"}


def fitting(array: Any, kind: str, name: str) -> Any:
    """The array as the session takes it.

    Numbers get the model's dtype, if no digit before the point is lost. Text stays text.

    Args:
        array: What the caller gave.
        kind: ONNX Runtime's name of a type, such as `tensor(float)`.
        name: The input, for messages.

    Returns:
        A contiguous array of that type.

    Raises:
        ValueError: The array has another kind of values, or numbers that the dtype can not hold.
    """
    wanted = kind.removeprefix("tensor(").removesuffix(")")
    if wanted == "string":
        array = np.asarray(array, dtype=object)
        if strange := [entry for entry in array.flat if not isinstance(entry, str)]:
            raise ValueError(f"input {name!r} is text; got {strange[0]!r}: fill gaps with text")
        return array
    dtype = np.dtype(_TENSORS.get(wanted, wanted))
    array = np.asarray(array)
    if array.dtype == object:  # columns of several kinds, side by side
        array = np.asarray(array.tolist())
    if not np.can_cast(array.dtype, dtype, "same_kind"):
        raise ValueError(f"input {name!r} is {dtype}; got {array.dtype}")
    cast = np.ascontiguousarray(array.astype(dtype))
    if dtype.kind in "iu" and not np.array_equal(cast, array):
        raise ValueError(f"input {name!r}: a number that {dtype} can not hold")
    return cast


def _session(file: Path, threads: int) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads, options.log_severity_level = threads, 1, 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])


def _has_vnni() -> bool:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return False
    return bool(VNNI & set(next((line for line in lines if line.startswith("flags")), "").split()))


mlflow.models.set_model(Release())
