"""The promotion policy: read strictly, tightened by a spec and never loosened, and never ignored."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from packhouse.digest import digest_bytes
from packhouse.errors import Refused, SpecInvalid
from packhouse.release.channels import by_hand, change
from packhouse.release.manifest import channel_key
from packhouse.release.promotion import insist, read_policy
from packhouse.release.store_layout import policy_key
from packhouse.spec.policy import (
    MARGINS,
    Policy,
    Promotion,
    Retention,
    parse_policy,
    render_policy,
    tightened,
)
from packhouse.spec.types import PRODUCTION
from packhouse.store import FileStore
from tests.support.small_release import MODEL, Small

TEXT = """schema = 1

[promotion]
no_worse_than = "production"   # the channel whose release is compared with
channels = ["production"]      # the channels that are guarded
accuracy_drop = 0.0            # points of 1, over all evaluation samples
slice_drop = 0.02              # points of 1, in any slice
changed = 0.05                 # part of samples whose output changes
p95 = 0.10                     # how much slower, as a part
size = 0.25                    # how much larger, as a part

[retention]
keep = 3                       # earlier releases of each channel
"""
CONTRACTS = Path(__file__).resolve().parents[3] / "docs" / "contracts.md"


def test_the_policy_that_the_docs_show_is_read():
    assert f"```toml\n{TEXT}```" in CONTRACTS.read_text("utf-8")
    policy = parse_policy(TEXT.encode())
    assert policy.promotion == Promotion(
        no_worse_than="production",
        channels=("production",),
        accuracy_drop=0.0,
        slice_drop=0.02,
        changed=0.05,
        p95=0.1,
        size=0.25,
    )
    assert policy.retention == Retention(keep=3)


LESS, MORE = "Input should be greater than or equal to 0", "Input should be less than or equal to 1"
HEAD = "schema = 1\n[promotion]\n"
INVALID = {
    "no schema": ("", "schema: missing"),
    "no such key": ("schema = 1\nretain = 3", "retain: unknown key"),
    "no such margin": (f"{HEAD}p99 = 0.1", "promotion.p99: unknown key"),
    "negative": (f"{HEAD}p95 = -0.1", f"promotion.p95: {LESS}"),
    "above 1": (f"{HEAD}changed = 1.5", f"promotion.changed: {MORE}"),
    "text": (f'{HEAD}size = "0.1"', "promotion.size: Input should be a valid number; got 0.1"),
    "a flag": (f"{HEAD}size = true", "promotion.size: Input should be a valid number"),
    "not a number": (f"{HEAD}size = nan", "promotion.size: "),
    "a channel in capitals": (f'{HEAD}channels = ["Prod"]', "promotion.channels[0]: "),
    "a channel twice": (f'{HEAD}channels = ["a", "a"]', "promotion: a channel stands there twice"),
    "text for a list": (f'{HEAD}channels = "a"', "promotion.channels: Input should be a valid tuple"),
    "half a release": ("schema = 1\n[retention]\nkeep = 1.5", "retention.keep: "),
    "keeps nothing named": ("schema = 1\n[retention]", "retention.keep: missing"),
    "no TOML": ("schema = ", "not TOML"),
    "two findings": ("schema = 1\na = 1\nb = 2", "a: unknown key; and 1 more"),
}


@pytest.mark.parametrize(("text", "words"), INVALID.values(), ids=INVALID)
def test_any_other_policy_is_refused_by_file_and_key(text, words):
    with pytest.raises(SpecInvalid) as caught:
        parse_policy(text.encode(), where="churn/policy.toml")
    assert str(caught.value).startswith("churn/policy.toml")
    assert words in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


margins = st.none() | st.floats(0, 1)
names = st.from_regex(r"[a-z0-9][a-z0-9-]{0,6}", fullmatch=True)
promotions = st.builds(
    Promotion,
    no_worse_than=st.none() | names,
    channels=st.lists(names, unique=True, max_size=3).map(tuple),
    **dict.fromkeys(MARGINS, margins),
)


@given(st.none() | promotions, st.none() | st.builds(Retention, keep=st.integers(0, 1000)))
def test_a_policy_is_read_back_as_it_was_written(promotion, retention):
    policy = Policy(**{"schema": 1}, promotion=promotion, retention=retention)
    assert parse_policy(render_policy(policy)) == policy


@given(st.none() | promotions, st.none() | promotions, names)
def test_the_stricter_value_counts(own, asked, channel):
    policy = Policy(**{"schema": 1}, promotion=own)
    both = tightened(policy, asked)
    for name in MARGINS:
        values = [getattr(each, name) for each in (own, asked) if each and getattr(each, name) is not None]
        assert getattr(both, name) == (min(values) if values else None)
    for each in (own, asked):
        assert not (each and each.guards(channel)) or both.guards(channel)
        assert not (each and each.guards(PRODUCTION)) or both.guards(PRODUCTION)
    if own and own != Promotion():
        assert both.no_worse_than == (own.no_worse_than or PRODUCTION)


def test_a_spec_can_not_compare_with_an_easier_channel():
    policy = parse_policy(TEXT.encode())
    both = tightened(policy, Promotion(no_worse_than="worst", channels=("candidate",), p95=0.5, size=0.1))
    assert (both.no_worse_than, both.p95, both.size) == ("production", 0.1, 0.1)
    assert both.channels == ("candidate", "production")
    assert tightened(None, Promotion(no_worse_than="best", p95=0.5)).no_worse_than == "best"
    assert tightened(None, None) == Promotion(no_worse_than=PRODUCTION)


def test_margins_guard_production_where_no_channel_is_named():
    assert Promotion(p95=0.1).guards(PRODUCTION)
    assert not Promotion(p95=0.1).guards("latest")
    assert not Promotion(channels=("latest",)).guards("latest"), "there is nothing to compare"
    both = tightened(Policy(**{"schema": 1}, promotion=Promotion(p95=0.1)), Promotion(channels=("latest",), size=0.1))
    assert both.guards(PRODUCTION)
    assert both.guards("latest")


def written(store: FileStore, text: str) -> None:
    store.put(policy_key(MODEL), text.encode(), digest=digest_bytes(text.encode()))


def test_margins_are_not_ignored_by_a_version_that_can_not_compare(tmp_path):
    store = FileStore(tmp_path)
    insist(store, MODEL, PRODUCTION, None)
    written(store, "schema = 1\n[retention]\nkeep = 3\n")
    assert read_policy(store, MODEL)
    insist(store, MODEL, PRODUCTION, None)
    written(store, TEXT)
    insist(store, MODEL, "latest", None)
    insist(store, "another-model", PRODUCTION, None)
    with pytest.raises(Refused, match=f"^{MODEL}@production: is guarded by margins.*got accuracy_drop = 0, slice_drop"):
        insist(store, MODEL, PRODUCTION, None)
    with pytest.raises(Refused, match=f"^{MODEL}@latest: is guarded by margins"):
        insist(store, MODEL, "latest", Promotion(channels=("latest",)))
    written(store, f"{HEAD}p98 = 0.1\n")
    with pytest.raises(SpecInvalid, match="unknown key"):
        insist(store, MODEL, "latest", None)


def packhouse(*arguments: str, store: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "packhouse", *arguments, "--store", str(store)]
    return subprocess.run(command, env=dict(os.environ), capture_output=True, text=True, check=False)


def test_the_command_moves_no_guarded_channel_forward_and_rolls_it_back(release: Small, tmp_path):
    small = release.copied(tmp_path / "store")
    store, name, other = FileStore(small.store), f"{MODEL}/{small.release}", "0" * 32
    change(store, MODEL, PRODUCTION, lambda here: by_hand(here, other, by="ann"))
    moved = packhouse("promote", name, PRODUCTION, "--by", "ann", store=small.store)
    assert moved.returncode == 0, moved.stderr
    written(store, TEXT)
    key = small.store / channel_key(MODEL, PRODUCTION)
    before = key.read_bytes()
    for arguments in (["--by", "ann"], ["--after", "7"]):
        refused = packhouse("promote", name, PRODUCTION, *arguments, store=small.store)
        assert (refused.returncode, refused.stdout) == (1, "")
        assert refused.stderr.startswith(f"refused: {MODEL}@production: is guarded by margins")
        assert len(refused.stderr.splitlines()) == 1
    assert key.read_bytes() == before
    assert packhouse("promote", name, "candidate", store=small.store).returncode == 0
    back = packhouse("rollback", f"{MODEL}@production", store=small.store)
    assert (back.returncode, back.stdout) == (0, f"{MODEL}/{other} production#3\n"), back.stderr
