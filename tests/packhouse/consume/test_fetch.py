"""Fetch: a consumer has a whole, proven release, or nothing; and is not shown an older channel than before."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import packhouse
from packhouse.consume import fetch as fetching
from packhouse.digest import canonical_json, digest_file
from packhouse.errors import DigestMismatch, NotFound, PackhouseError, Refused, SignatureInvalid
from packhouse.parity.replay import golden_cases
from packhouse.release.channels import by_hand, change
from packhouse.release.lookup import at_prefix
from packhouse.release.manifest import GOLDEN, MANIFEST, PROVENANCE, RECORD, SIGNATURE, WEIGHTS, channel_key
from packhouse.spec.model import SPEC_FILE, Format
from packhouse.store import FileStore
from packhouse.trust.dsse import make_keys
from packhouse.trust.verify import verify
from tests.packhouse.trust.test_signatures import by_key, signed
from tests.support.small_release import MODEL, Small, flip, sign_off

LATEST = f"{MODEL}@latest"


@pytest.fixture
def small(onnx_release: Small, tmp_path: Path) -> Small:
    return onnx_release.copied(tmp_path / "store")


def fetch(small: Small, to: Path, reference: str = LATEST, **options: object) -> fetching.Fetched:
    return packhouse.fetch(reference, to, store=str(small.store), floors=to.parent / "floors", **options)  # type: ignore[arg-type]


def contents(folder: Path) -> dict[str, str]:
    return {path.name: digest_file(path) for path in folder.iterdir()}


def test_what_was_fetched_is_the_release_and_verifies_by_itself(small, tmp_path):
    fetched = fetch(small, tmp_path / "here")
    assert (fetched.release, fetched.serial) == (f"{MODEL}/{small.release}", 1)
    there = contents(small.folder)
    assert contents(fetched.folder) == {name: digest for name, digest in there.items() if name != "report.json"}
    assert verify(at_prefix(FileStore(fetched.folder), "")).release == small.release


def test_fetched_again_nothing_comes_over_the_wire_and_a_rotten_file_is_mended(small, tmp_path):
    first = fetch(small, tmp_path / "here")
    assert first.got == len(small.manifest.artifacts)
    again = fetch(small, tmp_path / "here")
    assert (again.got, again.kept) == (0, first.got)
    (tmp_path / "here" / "model.onnx").write_bytes(b"rotten")
    assert fetch(small, tmp_path / "here").got == 1
    assert verify(at_prefix(FileStore(tmp_path / "here"), ""))


def test_only_what_a_server_needs(release, tmp_path):
    fetched = fetch(release, tmp_path / "here", formats=[Format.ONNX])
    assert contents(fetched.folder).keys() == {SPEC_FILE, GOLDEN, "model.onnx", MANIFEST, RECORD}
    with pytest.raises(NotFound, match="no such format"):
        fetch(release, tmp_path / "there", formats=[Format.ONNX_INT8])


@pytest.mark.parametrize("name", ["model.onnx", GOLDEN, MANIFEST, RECORD])
def test_one_changed_byte_in_the_store_leaves_nothing_behind(small, tmp_path, name):
    flip(small.folder / name)
    with pytest.raises(PackhouseError):
        fetch(small, tmp_path / "here")
    assert not (tmp_path / "here").exists()


def test_a_fetch_that_broke_off_goes_on_where_it_stopped(small, tmp_path):
    kept = (small.folder / WEIGHTS).read_bytes()
    (small.folder / WEIGHTS).write_bytes(b"x")
    with pytest.raises(DigestMismatch):
        fetch(small, tmp_path / "here")
    (small.folder / WEIGHTS).write_bytes(kept)
    fetched = fetch(small, tmp_path / "here")
    assert fetched.kept > 0
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".here")] == []


def test_many_fetches_at_once_leave_one_whole_folder_and_nothing_beside_it(small, tmp_path):
    with ThreadPoolExecutor(6) as pool:
        done = list(pool.map(lambda _: fetch(small, tmp_path / "to" / "here"), range(12)))
    assert {each.folder for each in done} == {tmp_path / "to" / "here"}
    assert {path.name for path in (tmp_path / "to").iterdir()} == {"here", "floors"}
    assert contents(tmp_path / "to" / "here").keys() == contents(small.folder).keys() - {"report.json"}
    assert verify(at_prefix(FileStore(tmp_path / "to" / "here"), ""))


def test_fetches_of_two_releases_to_one_place_are_never_mixed(small, other_release, tmp_path):
    def one(which: Small) -> str:
        try:
            return fetch(which, tmp_path / "here").release
        except Refused:
            return ""

    with ThreadPoolExecutor(2) as pool:
        ends = list(pool.map(one, [small, other_release]))
    assert sorted(map(bool, ends)) == [False, True]
    assert verify(at_prefix(FileStore(tmp_path / "here"), "")).release == "".join(ends).partition("/")[2]


def test_what_a_killed_fetch_left_goes_with_the_next(small, tmp_path):
    here = fetch(small, tmp_path / "here").folder
    (here / ".model.onnx.123-0123abcd").write_bytes(b"half")
    (here / SIGNATURE).write_bytes(b"of another time")
    fetch(small, here)
    assert contents(here).keys() == contents(small.folder).keys() - {"report.json"}


def test_a_manifest_is_kept_as_it_was_written(small, tmp_path):
    """Canonical, and without a field that has a default: as an earlier version may have written it."""
    document = json.loads((small.folder / MANIFEST).read_bytes())
    assert document.pop("text") == {}
    sign_off(small.folder, canonical_json(document), MODEL, small.release)
    here = fetch(small, tmp_path / "here").folder
    assert (here / MANIFEST).read_bytes() == (small.folder / MANIFEST).read_bytes()
    assert verify(at_prefix(FileStore(here), ""))


def test_a_floor_is_of_one_store_and_of_a_channel(small, tmp_path):
    fetch(small, tmp_path / "here")
    copy = small.copied(tmp_path / "other-store")
    change(FileStore(small.store), MODEL, "latest", lambda here: by_hand(here, "f" * 32, by=""))
    assert fetch(copy, tmp_path / "there").serial == 1
    with pytest.raises(NotFound, match="which a floor is of"):
        fetch(small, tmp_path / "x", reference=f"{MODEL}/{small.release}", floor=3)
    with pytest.raises(NotFound, match="names no channel"):
        fetch(small, tmp_path / "x", reference=f"{MODEL}@Latest")


def test_something_else_at_the_destination_is_left_alone(small, other_release, tmp_path):
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "mine").write_text("mine")
    with pytest.raises(Refused, match="something else stands here"):
        fetch(small, tmp_path / "here")
    assert (tmp_path / "here" / "mine").read_text() == "mine"
    fetch(other_release, tmp_path / "there")
    with pytest.raises(Refused, match="something else stands here"):
        fetch(small, tmp_path / "there")


def test_an_older_serial_than_was_seen_is_refused_and_a_rollback_by_its_owner_is_not(small, tmp_path):
    old = (small.store / channel_key(MODEL, "latest")).read_bytes()
    store = FileStore(small.store)
    change(store, MODEL, "latest", lambda here: by_hand(here, "f" * 32, by="x"))
    change(store, MODEL, "latest", lambda here: by_hand(here, small.release, by="x"))
    assert fetch(small, tmp_path / "here").serial == 3
    (small.store / channel_key(MODEL, "latest")).write_bytes(old)
    with pytest.raises(Refused, match="an older serial than was seen before") as caught:
        fetch(small, tmp_path / "here")
    assert "got #1, want #3 or later" in str(caught.value)
    with pytest.raises(Refused, match="want #9 or later"):
        fetch(small, tmp_path / "here", floor=9)


def test_a_signature_is_asked_for_before_anything_is_downloaded(release, tmp_path):
    secret, public = make_keys(tmp_path / "keys")
    whole = signed(release, by_key(secret), tmp_path / "signed")
    named = f"{MODEL}/{whole.release}"
    with pytest.raises(SignatureInvalid, match="latest: is not signed"):
        fetch(whole, tmp_path / "here", trust=[public])
    fetched = fetch(whole, tmp_path / "here", reference=named, trust=[public])
    assert fetched.signed_by.startswith("key ")
    assert {SIGNATURE, PROVENANCE} <= contents(fetched.folder).keys()
    other = make_keys(tmp_path / "other")[1]
    with pytest.raises(SignatureInvalid):
        fetch(whole, tmp_path / "there", reference=named, trust=[other])
    assert not (tmp_path / ".there.partial").exists()
    with pytest.raises(SignatureInvalid):
        packhouse.open_session(fetched.folder, trust=[other])


def test_a_session_answers_as_the_trained_model_did(small, tmp_path):
    folder = fetch(small, tmp_path / "here", formats=[Format.ONNX]).folder
    session = packhouse.open_session(folder)
    case = golden_cases(folder / GOLDEN)[0]
    (answer,) = session.run(None, dict(case.inputs))
    np.testing.assert_allclose(answer, case.expected["y"], rtol=1e-5, atol=1e-6)


def test_a_session_is_not_opened_on_changed_bytes_or_an_absent_format(small, tmp_path):
    folder = fetch(small, tmp_path / "here").folder
    with pytest.raises(NotFound, match="no such format here"):
        packhouse.open_session(folder, Format.ONNX_INT8)
    path = folder / "model.onnx"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(DigestMismatch):
        packhouse.open_session(folder)


HEAVY = ("torch", "prefect", "mlflow", "onnx", "onnxruntime", "boto3", "docker", "cryptography", "model_signing")


def test_fetch_needs_nothing_of_the_workers(small, tmp_path):
    """In a process of its own in which none of it can be imported."""
    program = f"""
import sys
for name in {HEAVY!r}:
    sys.modules[name] = None
import packhouse
print(packhouse.fetch({LATEST!r}, {str(tmp_path / "here")!r}, store={str(small.store)!r}, floors={str(tmp_path)!r}).got)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == len(small.manifest.artifacts)


def test_the_command_prints_the_folder_and_ends_with_one_line(small, tmp_path):
    here, environment = tmp_path / "here", os.environ | {"PACKHOUSE_HOME": str(tmp_path / "home")}
    command = [sys.executable, "-m", "packhouse", "fetch", LATEST, str(here), "--store", str(small.store)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, f"{here}\n"), done.stderr
    shutil.rmtree(here)
    command += ["--format", "nonsense"]
    wrong = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert wrong.returncode == 1
    made = ", ".join(sorted(each.name for each in small.manifest.formats))
    assert wrong.stderr == f"refused: nonsense: the release has no such format; got {made} (PH-0143)\n"
