"""Documents of a later schema are refused in one line that says what reads them; all others are not looked at here."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

import packhouse
from packhouse.digest import canonical_json, digest_bytes
from packhouse.errors import ReleaseInvalid, SpecInvalid
from packhouse.release.manifest import Channel, Decisions, Hold, Manifest, Record, Tombstone, channel_key, load
from packhouse.report.model import Report
from packhouse.spec.policy import parse_policy
from packhouse.spec.versions import NEEDS, refuse_newer
from packhouse.store import FileStore

HERE = f"and this is packhouse {packhouse.__version__}"
KINDS = {Manifest: 3, Record: 3, Channel: 2, Hold: 2, Tombstone: 2, Report: 2, Decisions: 2}
"""Every JSON document of a store -> the first schema that this version does not read."""


@pytest.mark.parametrize(("kind", "schema"), KINDS.items(), ids=lambda each: getattr(each, "__name__", None))
@pytest.mark.parametrize(
    ("needs", "reader"),
    [
        ({"needs": "0.3"}, "packhouse 0.3 or later"),
        ({"needs": "12.0.1"}, "packhouse 12.0.1 or later"),
        ({}, "a later packhouse"),
        ({"needs": "0.3; rm -rf /"}, "a later packhouse"),
        ({"needs": "9" * 5000}, "a later packhouse"),
        ({"needs": 7}, "a later packhouse"),
    ],
    ids=["needs", "a patch", "nothing", "no version", "long", "a number"],
)
def test_a_later_schema_is_refused_whatever_else_the_document_says(kind, schema, needs, reader):
    data = canonical_json({"schema": schema, "unheard-of": {"of": [1]}, **needs})
    with pytest.raises(ReleaseInvalid) as caught:
        load(kind, data, where="x.json")
    assert str(caught.value) == f"x.json: is of schema {schema}, {HERE}: needs {reader} (PH-0636)"
    assert caught.value.exit_status == 1


@pytest.mark.parametrize("kind", KINDS, ids=lambda each: each.__name__)
def test_a_document_of_a_known_schema_that_a_later_version_must_read_is_refused_too(kind):
    with pytest.raises(ReleaseInvalid) as caught:
        load(kind, canonical_json({"schema": 1, "needs": "77.1"}), where="x.json")
    assert str(caught.value) == f"x.json: needs packhouse 77.1 or later, {HERE} (PH-0241)"


@pytest.mark.parametrize("needs", [NEEDS, f"{NEEDS}.0", "0", "0.0.1", "0.1", packhouse.__version__])
def test_what_this_version_reads_is_not_refused(needs):
    refuse_newer({"schema": 2, "needs": needs}, 2, where="x")


@pytest.mark.parametrize("document", [[], None, 7, "schema", {"schema": True}, {"schema": "3"}, {"schema": 0}, {}])
def test_what_is_no_document_of_a_later_schema_is_left_to_the_strict_reader(document):
    refuse_newer(document, 1, where="x")


def test_a_policy_of_a_later_schema_is_refused():
    with pytest.raises(SpecInvalid) as caught:
        parse_policy(b'schema = 2\nneeds = "0.3"\n', where="churn/policy.toml")
    assert str(caught.value) == f"churn/policy.toml: is of schema 2, {HERE}: needs packhouse 0.3 or later (PH-0636)"


def test_the_command_ends_in_one_line_and_status_1(tmp_path):
    data = canonical_json({"schema": 2, "needs": "0.3"})
    key = channel_key("churn", "latest")
    FileStore(tmp_path / "store").put(key, data, digest=digest_bytes(data))
    done = subprocess.run(
        [sys.executable, "-m", "packhouse", "verify", "churn@latest"],
        env=os.environ | {"PACKHOUSE_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"refused: {key}: is of schema 2, {HERE}: needs packhouse 0.3 or later (PH-0636)\n"
