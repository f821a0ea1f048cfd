"""The layout of a store: one table, in the docs and in the code, that says of every key whose it is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from packhouse.release import store_layout as layout
from packhouse.release.store_layout import AREAS, Place, deletable, expired, place_of

CONTRACTS = Path(__file__).resolve().parents[3] / "docs" / "contracts.md"
ID = "0123456789abcdef" * 2
DAY = 24 * 3600.0


def table(title: str) -> list[list[str]]:
    """The rows of the first table below a title of docs/contracts.md."""
    _, _, text = CONTRACTS.read_text("utf-8").partition(f"\n## {title}\n")
    lines = text.partition("\n## ")[0].splitlines()
    rows = [line.strip("|").split("|") for line in lines if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in rows[2:]]


def test_the_docs_and_the_code_have_the_same_table():
    documented = table("The store")
    assert len(documented) == len(AREAS) >= 10
    for (objects, *told), area in zip(documented, AREAS, strict=True):
        first, *endings = re.findall(r"`([^`]+)`", objects)
        stem = first.rpartition(".")[0]
        assert (first, *(f"{stem}{ending}" for ending in endings)) == area.objects
        assert told == [area.written_by, area.read_by, area.kept]


MADE = {
    layout.release_key("churn", ID, "record.json"): Place(layout.RELEASES, "churn", ID, rest="record.json"),
    layout.channel_key("churn", "latest"): Place(layout.CHANNELS, "churn", name="latest"),
    layout.signature_key("churn", "latest"): Place(layout.CHANNELS, "churn", name="latest"),
    layout.proof_key("churn", ID, "2030-01-01.json"): Place(layout.PROOFS, "churn", ID, rest="2030-01-01.json"),
    layout.hold_key("churn", ID): Place(layout.HOLDS, "churn", ID),
    layout.tombstone_key("churn", ID): Place(layout.TOMBSTONES, "churn", ID),
    layout.policy_key("churn"): Place(layout.POLICIES, "churn"),
    layout.work_key("runs/x.json"): Place(layout.WORK, rest="runs/x.json"),
    layout.report_key("x/index.html"): Place(layout.REPORTS, rest="x/index.html"),
    layout.fleet_key("night.json"): Place(layout.FLEET, rest="night.json"),
    layout.recalled_key("list.json"): Place(layout.RECALLED, rest="list.json"),
}


@pytest.mark.parametrize(("key", "place"), MADE.items(), ids=MADE)
def test_a_key_that_is_made_is_recognised(key, place):
    assert place_of(key) == place


def test_each_row_has_a_key_that_is_made():
    assert {place.area.objects for place in MADE.values()} == {area.objects for area in AREAS}


@pytest.mark.parametrize(
    "key",
    [
        "churn",
        "churn/",
        "churn/notes.txt",
        f"churn/releases/{ID}",
        f"churn/releases/{ID}/",
        f"churn/releases/{ID[:-1]}/record.json",
        f"churn/releases/{ID.upper()}/record.json",
        f"Churn/releases/{ID}/record.json",
        f"_churn/releases/{ID}/record.json",
        "churn/channels/Latest.json",
        "churn/channels/latest.json.bak",
        "churn/channels/a/latest.json",
        "churn/channels/latestxjson",
        f"churn/holds/{ID}.toml",
        "churn/holds/latest.json",
        f"churn/tombstones/{ID}.json/x",
        "churn/policy.yaml",
        "churn/policyxtoml",
        "churn/sub/policy.toml",
        "policy.toml",
        "_work",
        "_works/x",
        "_other/x",
        f"{'m' * 64}/policy.toml",
    ],
)
def test_a_key_that_fits_no_row_is_nobodys_and_is_never_deleted(key):
    assert place_of(key) is None
    assert not deletable(key)
    assert not expired(key, 10_000 * DAY)


@pytest.mark.parametrize("key", MADE, ids=MADE)
def test_only_what_runs_leave_each_other_expires(key):
    is_work = key.startswith("_work/")
    assert expired(key, 7 * DAY + 1) is is_work
    assert not expired(key, 7 * DAY)


def test_only_a_release_that_nobody_holds_may_be_deleted_by_policy():
    assert [key for key in MADE if deletable(key)] == [layout.release_key("churn", ID, "record.json")]
    key = layout.release_key("churn", ID, "model.onnx")
    assert deletable(key, held={("churn", "f" * 32), ("other", ID)})
    assert not deletable(key, held={("churn", ID)})
