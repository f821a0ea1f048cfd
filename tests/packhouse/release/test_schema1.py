"""Documents of schema 1: read by their own rules, seen in the form of schema 2, written back as they were."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from packhouse.digest import canonical_json, digest_bytes
from packhouse.errors import ReleaseInvalid
from packhouse.release.manifest import Manifest, Record, Rows, Selection, dump, load
from packhouse.spec.model import Format

KEPT = Path(__file__).resolve().parents[2] / "old_releases" / "0.1.0" / "churn"
MANIFEST, RECORD = (KEPT / "manifest.json").read_bytes(), (KEPT / "record.json").read_bytes()


def manifest(**changes: object) -> bytes:
    return canonical_json(json.loads(MANIFEST) | changes)


def of_format(**changes: object) -> bytes:
    """With a change in its first format."""
    first, *others = json.loads(MANIFEST)["formats"]
    return manifest(formats=[first | changes, *others])


@pytest.mark.parametrize(("kind", "data"), [(Manifest, MANIFEST), (Record, RECORD)])
def test_what_0_1_wrote_is_written_back_byte_for_byte(kind, data):
    document = load(kind, data, where="x")
    assert document.schema_version == 1
    assert dump(document) == data
    assert load(kind, dump(document), where="x") == document


def test_a_manifest_has_the_form_of_schema_2_and_says_no_more_than_it_did():
    document = load(Manifest, MANIFEST, where="manifest.json")
    onnx, script, *_ = document.formats
    assert (onnx.name, onnx.files, onnx.format) == ("onnx", ("model.onnx",), Format.ONNX)
    assert (onnx.runtime.name, onnx.runtime.oldest) == ("onnxruntime", "1.18")
    assert onnx.runtime.facts == {"opset": 20, "ir": 10}
    assert onnx.onnx
    assert (onnx.onnx.opset, onnx.onnx.ir, onnx.onnx.onnxruntime) == (20, 10, "1.18")
    assert (script.runtime.name, script.runtime.oldest, script.onnx) == ("torch", "", None)
    assert {made.rows for made in document.formats} == {Rows.UNTESTED}
    assert {made.selection for made in document.formats} == {Selection.AUTO}
    assert {(made.way, made.computed_in) for made in document.formats} == {("", "")}
    assert (document.sizes.compared, document.values, document.samples) == ({}, {}, None)
    assert document.needs == "0.1"


def test_weights_beside_an_onnx_file_are_its_second_file():
    both = {"data": "weights.safetensors"}
    document = load(Manifest, of_format(**both), where="manifest.json")
    assert document.formats[0].files == ("model.onnx", "weights.safetensors")
    assert dump(document) == of_format(**both)


def test_the_id_is_by_the_rules_of_schema_1():
    document = load(Manifest, MANIFEST, where="manifest.json")
    written = json.loads(MANIFEST)["inputs"]
    del written["runtime"]
    assert document.release == digest_bytes(canonical_json(written)).removeprefix("sha256:")[:32]
    assert document.inputs.release_id != document.release
    with pytest.raises(ReleaseInvalid, match="the release's id is not that of its inputs"):
        load(Manifest, manifest(release=document.inputs.release_id), where="manifest.json")


REFUSED = {
    "a key of schema 2": manifest(extensions={}),
    "a key of schema 2 in its inputs": manifest(inputs=json.loads(MANIFEST)["inputs"] | {"environment": {}}),
    "a key of schema 2 in a format": of_format(rows="untested"),
    "a format of schema 2": manifest(
        formats=[
            {"name": "onnx", "files": ["model.onnx"], "runtime": {}, "tolerance": {"kind": "sqnr", "sqnr_db": 9.0}}
        ]
    ),
    "a format that 0.1 did not know": of_format(format="openvino"),
    "a file that is not there": of_format(data="absent.onnx.data"),
    "needs": manifest(needs="0.1"),
    "no format": manifest(formats=[]),
    "text for a number": of_format(onnx={"opset": "20", "ir": 10, "onnxruntime": "1.18"}),
}


@pytest.mark.parametrize("data", REFUSED.values(), ids=REFUSED)
def test_other_documents_are_no_manifest_of_schema_1(data):
    with pytest.raises(ReleaseInvalid, match=r"^manifest\.json: is not a manifest: "):
        load(Manifest, data, where="manifest.json")


def test_a_record_of_schema_1_has_no_key_of_schema_2():
    record = json.loads(RECORD)
    for changes in ({"needs": "0.2"}, {"provenance": record["provenance"] | {"sandbox": ["seccomp"]}}):
        with pytest.raises(ReleaseInvalid, match="Extra inputs are not permitted"):
            load(Record, canonical_json(record | changes), where="record.json")


def test_a_document_that_names_no_schema_is_of_the_first():
    record = json.loads(RECORD)
    del record["schema"]
    assert load(Record, canonical_json(record), where="record.json").schema_version == 1
