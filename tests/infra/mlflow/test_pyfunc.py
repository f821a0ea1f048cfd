"""The loader of the MLflow model, by itself: nothing is parsed that the manifest does not name."""

from __future__ import annotations

import hashlib
import json
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from infra.mlflow.pyfunc import loader
from infra.mlflow.pyfunc.loader import checked, chosen, fitting, tables
from packhouse.consume import session
from packhouse.errors import PackhouseError
from packhouse.formats import processors
from packhouse.release.choice import computes_as_judged, preferred
from packhouse.release.manifest import Manifest, Processors, Selection
from packhouse.serving import release
from packhouse.serving.settings import Choice
from packhouse.spec.model import Format
from tests.support.small_release import of_format


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


FORM = {
    1: lambda name, file, processors: {"format": name, "file": file, "processors": processors, "data": None},
    2: lambda name, file, processors: {
        "name": name,
        "files": [file],
        "processors": processors,
        "selection": "auto",
        "runtime": {"name": "onnxruntime", "oldest": "", "facts": {}},
    },
}
"""A format of a manifest, by schema."""


@pytest.fixture(params=FORM)
def form(request):
    return FORM[request.param]


def test_int8_is_run_where_the_release_has_it_and_another_format_where_it_is_asked_for(form):
    fp32, int8 = form("onnx", "model.onnx", "any"), form("onnx-int8", "model.int8.onnx", "any")
    manifest = {"formats": [fp32, int8, form("torchscript", "model.ts", "any")]}
    assert chosen(manifest, "auto")["files"] == ["model.int8.onnx"]
    assert chosen(manifest, "onnx")["files"] == ["model.onnx"]
    with pytest.raises(ValueError, match="can not be run here"):
        chosen({"formats": [fp32]}, "onnx-int8")
    with pytest.raises(ValueError, match="can not be run here"):
        chosen(manifest, "torchscript")


def test_int8_that_was_judged_on_vnni_is_run_where_the_processor_has_it_and_nowhere_else(form, monkeypatch):
    manifest = {"formats": [form("onnx", "model.onnx", "any"), form("onnx-int8", "model.int8.onnx", "vnni")]}
    monkeypatch.setattr(loader, "_has_vnni", lambda: True)
    assert chosen(manifest, "auto")["name"] == "onnx-int8"
    monkeypatch.setattr(loader, "_has_vnni", lambda: False)
    assert chosen(manifest, "auto")["name"] == "onnx"
    with pytest.raises(ValueError, match="judged on processors with VNNI"):
        chosen(manifest, "onnx-int8")


def test_a_format_that_must_be_named_is_not_picked():
    fp32, int8 = FORM[2]("onnx", "model.onnx", "any"), FORM[2]("onnx-int8", "model.int8.onnx", "any")
    manifest = {"formats": [fp32, int8 | {"selection": "named"}]}
    assert chosen(manifest, "auto")["name"] == "onnx"
    assert chosen(manifest, "onnx-int8")["name"] == "onnx-int8"


def test_the_loader_knows_vnni_by_the_flags_that_packhouse_knows():
    assert loader.VNNI == processors.VNNI
    assert loader._has_vnni() is processors.has_vnni()


COMBINATIONS = [
    (fp32, int8, vnni, wanted)
    for fp32 in (None, *product(Processors, Selection))
    for int8 in (None, *product(Processors, Selection))
    for vnni in (False, True)
    for wanted in ("auto", "onnx", "onnx-int8")
    if fp32 or int8
]
"""For fp32 and INT8: the processors and the selection, or None where the release has no such format."""


@pytest.mark.parametrize(("fp32", "int8", "vnni", "wanted"), COMBINATIONS)
def test_the_loader_runs_what_sessions_and_the_server_run(tmp_path, monkeypatch, fp32, int8, vnni, wanted):
    formats = tuple(
        of_format(format, processors=given[0], selection=given[1])
        for format, given in ((Format.ONNX, fp32), (Format.ONNX_INT8, int8))
        if given
    )
    manifest = Manifest.model_construct(model="linear", formats=formats)
    there = {made.file for made in formats}
    for file in there:
        (tmp_path / file).touch()
    monkeypatch.setattr(loader, "_has_vnni", lambda: vnni)
    monkeypatch.setattr(session, "has_vnni", lambda: vnni)

    def name(choose) -> str:
        try:
            return str(choose())
        except (ValueError, PackhouseError):
            return "refused"

    if wanted == "auto":
        picked = preferred(formats, vnni=vnni)
        rule = picked.name if picked else "refused"
    else:
        fits = (made for made in formats if made.name == wanted and computes_as_judged(made, vnni=vnni))
        rule = next((made.name for made in fits), "refused")
    plain = {"formats": [made.model_dump(mode="json") for made in formats]}
    assert name(lambda: chosen(plain, wanted)["name"]) == rule
    asked = None if wanted == "auto" else wanted
    assert name(lambda: session._chosen(manifest, tmp_path, asked).name) == rule
    served = lambda: release.chosen(manifest, Choice(wanted), vnni=vnni, cuda=False, there=there).name  # noqa: E731
    assert name(served) == rule


@pytest.mark.parametrize(
    ("fp32", "int8", "vnni", "picked"),
    [
        ("any", "any", False, "onnx-int8"),
        ("any", "vnni", True, "onnx-int8"),
        ("any", "vnni", False, "onnx"),
        ("any", None, True, "onnx"),
        (None, "vnni", False, None),
        ("vnni", "vnni", False, None),
    ],
)
def test_the_rule_is_int8_where_it_computes_as_judged_and_else_fp32(fp32, int8, vnni, picked):
    given = {Format.ONNX: fp32, Format.ONNX_INT8: int8}
    formats = [of_format(format, processors=Processors(bound)) for format, bound in given.items() if bound]
    found = preferred(formats, vnni=vnni)
    assert (found.name if found else None) == picked


def test_a_format_that_the_loader_does_not_know_is_never_picked_and_says_what_to_install():
    other = FORM[2]("openvino", "model.xml", "any") | {"runtime": {"name": "openvino", "oldest": "", "facts": {}}}
    manifest = {"formats": [other, FORM[2]("onnx", "model.onnx", "any")]}
    assert chosen(manifest, "auto")["name"] == "onnx"
    with pytest.raises(ValueError, match=r"^format 'openvino': not run: install openvino$"):
        chosen(manifest, "openvino")


@pytest.mark.parametrize(
    ("document", "reader"),
    [({"schema": 3, "needs": "0.4"}, "a model of packhouse 0.4"), ({"schema": 3}, "a model of a later packhouse")],
)
def test_a_manifest_of_a_later_schema_is_refused_in_one_line(folder, document, reader):
    manifest = json.dumps(document).encode()
    (folder / "manifest.json").write_bytes(manifest)
    (folder / "record.json").write_text(json.dumps({"manifest": digest(manifest)}))
    with pytest.raises(ValueError, match=rf"^manifest.json: is of schema 3, and this reads 2: needs {reader}$"):
        checked(folder, "")


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
