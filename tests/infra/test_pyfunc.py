"""The loader of the MLflow model, by itself: nothing is parsed that the manifest does not name."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from infra.pyfunc import loader
from infra.pyfunc.loader import checked, chosen, fitting, tables


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    manifest = json.dumps({"artifacts": [{"name": "model.onnx", "digest": digest(b"the model")}]}).encode()
    (tmp_path / "manifest.json").write_bytes(manifest)
    (tmp_path / "record.json").write_text(json.dumps({"manifest": digest(manifest)}))
    (tmp_path / "model.onnx").write_bytes(b"the model")
    return tmp_path


def test_a_whole_folder_is_taken_and_one_with_other_bytes_is_not(folder):
    checked(folder, "")
    with pytest.raises(ValueError, match=r"manifest.json: sha256 differs from that of model_config"):
        checked(folder, digest(b"of another release"))
    (folder / "model.onnx").write_bytes(b"tampered")
    with pytest.raises(ValueError, match=r"model.onnx: sha256 differs"):
        checked(folder, "")


def test_a_file_that_the_manifest_does_not_name_is_not_taken(folder):
    (folder / "evil.onnx").write_bytes(b"")
    with pytest.raises(ValueError, match=r"evil.onnx: is not in the manifest"):
        checked(folder, "")


def test_a_manifest_that_the_record_does_not_name_is_not_taken(folder):
    (folder / "manifest.json").write_text(json.dumps({"artifacts": []}))
    with pytest.raises(ValueError, match=r"differs from that of record.json"):
        checked(folder, "")


def test_int8_is_run_where_the_release_has_it_and_another_format_where_it_is_asked_for():
    fp32 = {"format": "onnx", "file": "model.onnx", "processors": "any"}
    int8 = {"format": "onnx-int8", "file": "model.int8.onnx", "processors": "any"}
    manifest = {"formats": [fp32, int8, {"format": "torchscript", "file": "model.ts", "processors": "any"}]}
    assert chosen(manifest, "auto") is int8
    assert chosen(manifest, "onnx") is fp32
    with pytest.raises(ValueError, match="can not be run here"):
        chosen({"formats": [fp32]}, "onnx-int8")
    with pytest.raises(ValueError, match="can not be run here"):
        chosen(manifest, "torchscript")


def test_int8_that_was_judged_on_vnni_is_run_where_the_processor_has_it_and_nowhere_else(monkeypatch):
    fp32 = {"format": "onnx", "file": "model.onnx", "processors": "any"}
    manifest = {"formats": [fp32, {"format": "onnx-int8", "file": "model.int8.onnx", "processors": "vnni"}]}
    monkeypatch.setattr(loader, "_has_vnni", lambda: True)
    assert chosen(manifest, "auto") is manifest["formats"][1]
    monkeypatch.setattr(loader, "_has_vnni", lambda: False)
    assert chosen(manifest, "auto") is fp32
    with pytest.raises(ValueError, match="judged on processors with VNNI"):
        chosen(manifest, "onnx-int8")


def test_numbers_become_the_models_and_what_would_change_them_is_refused():
    assert fitting([1.5, 2], "tensor(float)", "x").dtype == np.float32
    assert fitting(np.array([3], np.int64), "tensor(int32)", "x").dtype == np.int32
    with pytest.raises(ValueError, match="can not hold"):
        fitting(np.array([2**40]), "tensor(int32)", "x")
    with pytest.raises(ValueError, match="input 'x' is int64; got float64"):
        fitting(np.array([1.5]), "tensor(int64)", "x")
    with pytest.raises(ValueError, match="fill gaps with text"):
        fitting(np.array(["year", None], object), "tensor(string)", "plan")


def test_features_are_columns_and_what_is_no_table_is_arrays():
    step = {"kind": "standard", "input": "x", "columns": ["age", "spend"]}
    spec = {
        "inputs": [{"name": "x", "shape": ["batch", 2]}, {"name": "plan", "shape": ["batch", 1], "dtype": "int64"}],
        "outputs": [{"name": "y", "shape": ["batch", 2]}],
        "preprocessing": [step],
    }
    assert tables(spec, {"plan": ["month"]}) == ({"x": ["age", "spend"], "plan": ["plan"]}, {"y": ["y[0]", "y[1]"]})
    assert tables(spec | {"preprocessing": []}, {}) == ({}, {})
    assert tables(spec | {"outputs": [{"name": "y", "shape": ["batch", 2, 2]}]}, {}) == ({}, {})
    twice = spec | {"preprocessing": [step | {"columns": ["age", "plan"]}]}
    assert tables(twice, {}) == ({}, {}), "two columns of one name can not be told apart"
