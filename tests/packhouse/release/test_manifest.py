"""The documents of a release: one way to write them, and nothing in them that does not hold together."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from packhouse.artifact import Artifact, Outcome, Verdict
from packhouse.digest import canonical_json, digest_bytes
from packhouse.errors import ReleaseInvalid
from packhouse.release.manifest import (
    CANARY,
    PARITY,
    AbsoluteTolerance,
    ArchitectureCode,
    Channel,
    Counts,
    FormatPackage,
    Inputs,
    Manifest,
    RatioTolerance,
    Record,
    ReleasedImage,
    Rows,
    Runtime,
    Selection,
    Sizes,
    SqnrTolerance,
    Values,
    dump,
    load,
    release_key,
)
from packhouse.spec.model import Format
from tests.support.small_release import of_format

D = [digest_bytes(bytes([n])) for n in range(9)]


def inputs(**changes: object) -> Inputs:
    code = ArchitectureCode(name="a", distribution="d", version="1", code=D[0])
    given = {"spec": D[1], "weights": D[2], "samples": D[3], "architecture": code, "code": D[4]}
    return Inputs(**(given | {"libraries": {"torch": "2.13"}, "device": "x86_64"} | changes))


def artifact(name: str, digest: str = D[5]) -> Artifact:
    return Artifact(name=name, digest=digest, size=3, media_type="application/octet-stream")


def document() -> dict:
    """A manifest that is right."""
    return {
        "model": "m",
        "release": inputs().release_id,
        "inputs": inputs(),
        "outputs": ("y",),
        "formats": (of_format(Format.ONNX),),
        "artifacts": (artifact("model.onnx"), artifact("package.toml", D[1])),
        "verdicts": (Verdict(check=PARITY, subject="onnx", outcome=Outcome.PASS, compared=(D[5], D[2])),),
    }


def passes(digest: str) -> Verdict:
    return Verdict(check=PARITY, subject="onnx", outcome=Outcome.PASS, compared=(digest,))


def refuses(digest: str) -> Verdict:
    return Verdict(check=PARITY, subject="onnx", outcome=Outcome.REFUSED, compared=(digest,), reason="off")


ONNX = document()["formats"][0]
WRONG = {
    "no format": ({"formats": ()}, "at least 1 item"),
    "a format twice": ({"formats": (ONNX, ONNX.model_copy(update={"files": ("package.toml",)}))}, "twice"),
    "a format that is not there": ({"artifacts": (artifact("package.toml"),)}, "model.onnx is not among the artifacts"),
    "data that is not there": (
        {"formats": (ONNX.model_copy(update={"files": ("model.onnx", "model.onnx.data")}),)},
        "model.onnx.data is not among the artifacts",
    ),
    "no verdict": ({"verdicts": ()}, "no verdict of parity passes"),
    "a verdict on other bytes": ({"verdicts": (passes(D[6]),)}, "no verdict of parity passes"),
    "another check": ({"verdicts": (passes(D[5]).model_copy(update={"check": "latency"}),)}, "no verdict of parity"),
    "a refusal": ({"verdicts": (refuses(D[5]),)}, "no verdict of parity passes"),
    "a pass and a refusal": ({"verdicts": (passes(D[5]), refuses(D[5]))}, "no verdict of parity passes"),
    "not run": (
        {"verdicts": (passes(D[5]).model_copy(update={"outcome": Outcome.NOT_RUN, "reason": "no CPU"}),)},
        "no verdict of parity passes",
    ),
    "unsorted": ({"artifacts": tuple(reversed(document()["artifacts"]))}, "sorted by name"),
    "an artifact twice": ({"artifacts": (artifact("model.onnx"), artifact("model.onnx"))}, "each once"),
    "itself": ({"artifacts": (artifact("manifest.json"), artifact("model.onnx"))}, "manifest.json can not be an"),
    "its record": ({"artifacts": (artifact("model.onnx"), artifact("record.json"))}, "record.json can not be an"),
    "another id": ({"release": "0" * 32}, "not that of its inputs"),
    "other inputs": ({"inputs": inputs(device="arm64")}, "not that of its inputs"),
    "a path": ({"artifacts": ({"name": "../x", "digest": D[5], "size": 3, "media_type": ""},)}, "pattern"),
    "another schema": ({"schema": 3}, "Input should be 1 or 2"),
}


@pytest.mark.parametrize("change, words", WRONG.values(), ids=WRONG)
def test_a_manifest_that_does_not_hold_together_can_not_be_made(change, words):
    Manifest(**document())
    with pytest.raises(ValidationError, match=words):
        Manifest(**(document() | change))


def test_the_release_id_is_of_all_inputs_and_of_nothing_else():
    ids = {inputs().release_id, inputs().release_id}
    for name, other in {
        "spec": D[7],
        "weights": D[7],
        "samples": D[7],
        "code": D[7],
        "device": "arm64",
        "libraries": {"torch": "2.14"},
        "architecture": inputs().architecture.model_copy(update={"code": D[7]}),
        "environment": {"OMP_NUM_THREADS": "1"},
        "format_packages": {"acme-format": FormatPackage(version="1", digest=D[7])},
    }.items():
        ids.add(inputs(**{name: other}).release_id)
    assert len(ids) == 10


def test_the_id_of_schema_1_knows_no_inputs_of_schema_2():
    more = inputs(environment={"A": "1"}, format_packages={"p": FormatPackage(version="1", digest=D[7])})
    assert more.release_id_of(1) == inputs().release_id_of(1)
    assert more.release_id_of(2) != inputs().release_id_of(2)
    assert inputs().release_id_of(1) != inputs().release_id_of(2)


numbers = st.floats(0, 1e6)
tolerances = (
    st.builds(RatioTolerance, max=numbers, rms=numbers)
    | st.builds(AbsoluteTolerance, atol=numbers, rtol=numbers)
    | st.builds(SqnrTolerance, sqnr_db=st.floats(-200, 200))
)
words = st.text(st.characters(exclude_categories=("Cs",)), max_size=12)


@given(tolerances, st.dictionaries(words, words, max_size=3), st.lists(words, max_size=3), st.integers(0, 2**63))
def test_a_manifest_is_read_back_as_it_was_written(tolerance, libraries, outputs, size):
    of = inputs(libraries=libraries)
    made = Manifest(
        **document()
        | {
            "inputs": of,
            "release": of.release_id,
            "outputs": tuple(outputs),
            "formats": (of_format(Format.ONNX, tolerance),),
            "artifacts": (artifact("model.onnx").model_copy(update={"size": size}), artifact("package.toml")),
        }
    )
    assert load(Manifest, dump(made), where="manifest.json") == made
    assert dump(load(Manifest, dump(made), where="manifest.json")) == dump(made)


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | words, lambda each: st.lists(each) | st.dictionaries(words, each)
)
numbers_of_values = st.none() | st.tuples(numbers, numbers)


@given(
    st.dictionaries(words, plain, max_size=3),
    st.dictionaries(st.sampled_from(["batch", "time"]), st.lists(st.integers(0, 2**31)).map(tuple)),
    st.builds(Values, range=numbers_of_values, nan=st.booleans(), inf=st.booleans()),
    st.builds(Counts, calibration=st.integers(0, 2**40), evaluation=st.integers(0, 2**40)),
    st.sampled_from(Rows),
    st.sampled_from(Selection),
)
def test_what_schema_2_adds_is_read_back_as_it_was_written(extensions, sizes, values, counts, rows, selection):
    runtime = Runtime(name="openvino", oldest="2026.1", facts=extensions)
    other = of_format(Format.ONNX, name="openvino", runtime=runtime, rows=rows, selection=selection, way="convert")
    made = Manifest(
        **document()
        | {
            "formats": (other,),
            "sizes": Sizes(compared=sizes, by_shape=sizes, not_tried=("batch: above 8",)),
            "values": {"x": values},
            "samples": counts,
            "extensions": extensions,
        }
    )
    data = dump(made)
    assert load(Manifest, data, where="manifest.json") == made
    assert dump(load(Manifest, data, where="manifest.json")) == data
    assert json.loads(data)["schema"] == 2
    assert json.loads(data)["needs"] == "0.2"


@pytest.mark.parametrize("old", ["format", "file", "data", "onnx"])
def test_a_key_of_schema_1_is_none_of_schema_2(old):
    made = json.loads(dump(Manifest(**document())))
    made["formats"][0][old] = None
    with pytest.raises(ReleaseInvalid, match="Extra inputs are not permitted"):
        load(Manifest, canonical_json(made), where="manifest.json")


@given(st.integers(1, 2**63), words)
def test_a_channel_is_read_back_as_it_was_written(serial, moved_at):
    made = Channel(release="0" * 32, serial=serial, moved_at=moved_at)
    assert load(Channel, dump(made), where="latest.json") == made


RECORD = dump(Record(model="m", release="0" * 32, manifest=D[0], manifest_size=7))
SPOILED = {
    "nothing": b"",
    "half of it": RECORD[:40],
    "no newline": RECORD[:-1],
    "two newlines": RECORD + b"\n",
    "blanks": json.dumps(json.loads(RECORD)).encode() + b"\n",
    "other order": b'{"schema":2,' + RECORD[1:].replace(b',"schema":2', b""),
    "a key twice": RECORD.replace(b'"model":"m"', b'"model":"x","model":"m"'),
    "unknown key": canonical_json(json.loads(RECORD) | {"extra": 1}),
    "missing key": canonical_json({k: v for k, v in json.loads(RECORD).items() if k != "manifest"}),
    "text for a number": canonical_json(json.loads(RECORD) | {"manifest_size": "7"}),
    "a float for a number": canonical_json(json.loads(RECORD) | {"manifest_size": 7.0}),
    "NaN": RECORD.replace(b'"manifest_size":7', b'"manifest_size":NaN'),
    "a huge number": RECORD.replace(b'"manifest_size":7', b'"manifest_size":' + b"9" * 5000),
    "an escape that nobody needs": RECORD.replace(b'"m"', b'"\\u006d"'),
    "half a character": RECORD.replace(b'"m"', b'"\\ud800"'),
    "not UTF-8": RECORD.replace(b'"m"', b'"\xff"'),
    "UTF-16": RECORD.decode().encode("utf-16"),
    "byte order mark": b"\xef\xbb\xbf" + RECORD,
    "a list": b"[]\n",
    "deep": b"[" * 100_000 + b"]" * 100_000,
    "deep in a field": RECORD.replace(b'"m"', b"[" * 900 + b"]" * 900),
    "upper-case digest": RECORD.replace(D[0].encode(), D[0].upper().encode()),
    "newline behind the id": RECORD.replace(b'"' + b"0" * 32, b'"' + b"0" * 32 + b"\\n"),
}


@pytest.mark.parametrize("data", SPOILED.values(), ids=SPOILED)
def test_other_bytes_are_no_record(data):
    load(Record, RECORD, where="record.json")
    assert data != RECORD
    with pytest.raises(ReleaseInvalid, match=r"^record\.json: is not (a record|canonical JSON)"):
        load(Record, data, where="record.json")


def test_a_key_that_stands_twice_is_named():
    with pytest.raises(ReleaseInvalid, match="a key stands there twice"):
        load(Record, SPOILED["a key twice"], where="record.json")


def test_a_tolerance_that_is_no_number_can_not_be_read():
    data = dump(Manifest(**document())).replace(b'"max":8.0', b'"max":NaN')
    with pytest.raises(ReleaseInvalid, match="is not a manifest"):
        load(Manifest, data, where="manifest.json")


@pytest.mark.parametrize("outcome", [Outcome.REFUSED, Outcome.NOT_RUN])
def test_only_a_pass_needs_no_reason(outcome):
    with pytest.raises(ValidationError, match="needs a reason"):
        Verdict(check=PARITY, subject="onnx", outcome=outcome)


def test_the_folder_of_a_release_is_below_its_model():
    assert release_key("m", "0" * 32, "record.json") == f"m/releases/{'0' * 32}/record.json"


IMAGE = ReleasedImage(repository="registry.example/m", digest=D[6], runtime=D[7])
RECORD_OF_AN_IMAGE = {"model": "m", "release": "0" * 32, "manifest": D[0], "manifest_size": 9, "image": IMAGE}


@pytest.mark.parametrize(
    "verdicts",
    [
        (),
        (Verdict(check=CANARY, subject="image", outcome=Outcome.REFUSED, compared=(D[6],), reason="off"),),
        (Verdict(check=CANARY, subject="image", outcome=Outcome.NOT_RUN, compared=(D[6],), reason="no engine"),),
        (Verdict(check=CANARY, subject="image", outcome=Outcome.PASS, compared=(D[5],)),),
        (Verdict(check=PARITY, subject="image", outcome=Outcome.PASS, compared=(D[6],)),),
    ],
    ids=["none", "refused", "not run", "of another image", "of another check"],
)
def test_record_of_an_image_that_no_canary_passed_can_not_be_made(verdicts):
    with pytest.raises(ValidationError, match="canary"):
        Record(**RECORD_OF_AN_IMAGE, verdicts=verdicts)


def test_record_of_a_proven_image_reads_back():
    verdict = Verdict(check=CANARY, subject="image", outcome=Outcome.PASS, compared=(D[6], D[5]))
    record = Record(**RECORD_OF_AN_IMAGE, verdicts=(verdict,))
    assert load(Record, dump(record), where="") == record
    assert IMAGE.reference == f"registry.example/m@{D[6]}"


def test_runtime_image_is_an_input_only_of_releases_with_an_image():
    """Releases from before there were images keep their names."""
    without, one, other = inputs(), inputs(runtime=D[6]), inputs(runtime=D[7])
    assert len({without.release_id, one.release_id, other.release_id}) == 3
    written = without.model_dump(mode="json")
    del written["runtime"]
    assert without.release_id == digest_bytes(canonical_json(written)).removeprefix("sha256:")[:32]


def test_a_manifest_from_before_text_is_read_as_one_without():
    made = json.loads(dump(Manifest(**document())))
    assert made.pop("text") == {}
    assert load(Manifest, canonical_json(made), where="manifest.json") == Manifest(**document())
