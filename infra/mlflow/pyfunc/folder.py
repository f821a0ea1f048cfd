"""A release as a folder that MLflow can load: the loader, the release's own bytes, signature, example, requirements.

The release's bytes are the manifest's; all else is a function of them and of the installed versions, but for the ids
that MLflow gave the model. Nothing in it says where it was made. The loader imports MLflow, which takes a second and
100 MB: it is imported where a folder is made, and not by every run.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from packhouse.formats.arrays import Array
from packhouse.release.manifest import Manifest
from packhouse.spec.model import Spec, Tensor

RELEASE = "release"
"""The artifact: a folder with what the loader needs of the release."""
REQUIRED = ("mlflow", "numpy", "onnxruntime", "pandas")
MADE = "1980-01-01 00:00:00.000000"
"""MLmodel must have a time. This one is no clock's, as that of the files in a model's image."""
ROWS = 3
"""Of the input example."""
_one_at_a_time = threading.Lock()
"""MLflow keeps the model that a code file sets in a global variable."""


@dataclass(frozen=True)
class Ids:
    """What MLflow calls the model: its id, where its files go, and the run that it is of."""

    model: str = ""
    place: str = ""
    run: str | None = None


def write(
    folder: Path, release: Path, spec: Spec, manifest: Manifest, inputs: Mapping[str, Array], ids: Ids, about: str
) -> None:
    """folder: does not exist yet. release: a folder with record, manifest, spec, golden cases and ONNX files. inputs:
    of one golden case, text as text. about: the digest of the manifest."""
    os.environ.setdefault("MLFLOW_UV_AUTO_DETECT", "false")  # or a uv.lock of the working directory goes in
    import mlflow

    from infra.mlflow.pyfunc import loader

    assert release.name == RELEASE
    model = mlflow.models.Model(
        model_id=ids.model or None, artifact_path=ids.place or None, run_id=ids.run, utc_time_created=MADE
    )
    model.model_uuid = ids.model
    with _one_at_a_time:
        mlflow.pyfunc.save_model(
            path=folder,
            mlflow_model=model,
            python_model=loader.__file__,
            artifacts={RELEASE: str(release)},
            signature=signature(spec, manifest),
            input_example=example(spec, manifest, inputs),
            pip_requirements=[f"{name}=={version(name)}" for name in REQUIRED],
            model_config={"format": "auto", "threads": 0, "manifest": about},
            metadata={"packhouse.model": manifest.model, "packhouse.release": manifest.release},
        )
    _without_paths(model, folder)
    _pinned(folder / "python_env.yaml")


def signature(spec: Spec, manifest: Manifest) -> Any:
    """Columns where inputs are features of a table, and else tensors."""
    from mlflow.models import ModelSignature

    from infra.mlflow.pyfunc import loader

    inputs, outputs = _tables(spec, manifest)
    if not inputs:
        return ModelSignature(inputs=_tensors(spec.inputs, manifest.text), outputs=_tensors(spec.outputs, {}))
    return ModelSignature(
        inputs=_columns(spec.inputs, inputs, manifest.text, loader.TYPES),
        outputs=_columns(spec.outputs, outputs, {}, loader.TYPES | {"float32": "float"}),
    )


def example(spec: Spec, manifest: Manifest, inputs: Mapping[str, Array]) -> Any:
    """The first rows of a golden case, as the signature has them."""
    rows = {name: array[:ROWS] if spec.batch else array for name, array in inputs.items()}
    table, _ = _tables(spec, manifest)
    return frame(table, rows) if table else {name: _plain(array) for name, array in rows.items()}


def frame(table: Mapping[str, list[str]], inputs: Mapping[str, Array]) -> Any:
    """The inputs as a customer's table has them."""
    import pandas as pd

    columns: dict[str, Any] = {}
    for name, parts in table.items():
        array = inputs[name].reshape(-1, len(parts))
        wide = array.astype(np.float64) if array.dtype.kind == "f" else array
        columns |= {part: wide[:, place] for place, part in enumerate(parts)}
    return pd.DataFrame(columns)


def _tables(spec: Spec, manifest: Manifest) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    from infra.mlflow.pyfunc import loader

    return loader.tables(spec.model_dump(mode="json"), manifest.text)


def _plain(array: Array) -> Array:
    """MLflow's tensors of text are numpy's, and not of objects."""
    return array.astype(str) if array.dtype == object else array


def _columns(
    tensors: tuple[Tensor, ...],
    table: Mapping[str, list[str]],
    text: Mapping[str, Any],
    types: Mapping[str, str],
) -> Any:
    from mlflow.types import ColSpec, DataType, Schema

    kinds = {each.name: DataType["string" if each.name in text else types[each.dtype.value]] for each in tensors}
    return Schema([ColSpec(kinds[name], part) for name, parts in table.items() for part in parts])


def _tensors(tensors: tuple[Tensor, ...], text: Mapping[str, Any]) -> Any:
    from mlflow.types import Schema, TensorSpec

    def sizes(tensor: Tensor) -> tuple[int, ...]:
        return tuple(size if isinstance(size, int) else -1 for size in tensor.shape)

    def dtype(tensor: Tensor) -> np.dtype[Any]:
        return np.dtype(str if tensor.name in text else tensor.dtype.value)

    return Schema([TensorSpec(dtype(tensor), sizes(tensor), tensor.name) for tensor in tensors])


def _pinned(environment: Path) -> None:
    """Of what builds packages, MLflow names without a version what is not installed here; wheels do not need it."""
    import yaml

    document = yaml.safe_load(environment.read_text("utf-8"))
    document["build_dependencies"] = [each for each in document["build_dependencies"] if "==" in each]
    environment.write_text(yaml.safe_dump(document, sort_keys=False), "utf-8")


def _without_paths(model: Any, folder: Path) -> None:
    """MLflow writes down where the files came from; it reads only where they are."""
    flavor = model.flavors["python_function"]
    flavor["model_code_path"] = Path(flavor["model_code_path"]).name
    for found in flavor["artifacts"].values():
        found["uri"] = found["path"]
    model.save(str(folder / "MLmodel"))
