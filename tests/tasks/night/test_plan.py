"""A night's plan: what is looked at, at what cost, and how the work is shared out."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.worker.context import worker_context
from packhouse.errors import SourceNotAllowed, SpecInvalid
from packhouse.release.manifest import Channel, channel_key, dump
from packhouse.store import FileStore
from tasks.night import plan as nights
from tasks.night.plan import Work, below, night, plan_night, shards
from tasks.plan import plan


def works(costs: list[float]) -> list[Work]:
    return [Work(source=f"s3://b/m{number}", model=f"m{number}", cost=cost) for number, cost in enumerate(costs)]


@given(
    st.lists(st.floats(0.1, 1e5), max_size=120),
    st.floats(1, 1e5),
    st.integers(1, 60),
)
def test_every_model_is_in_exactly_one_shard_and_none_is_too_large(costs, seconds, most):
    work = works(costs)
    shared = shards(work, seconds=seconds, most=most)
    assert sorted(each.model for shard in shared for each in shard) == sorted(each.model for each in work)
    assert all(0 < len(shard) <= most for shard in shared)


def test_shards_are_about_as_long_as_asked_and_about_equal():
    shared = shards(works([60.0] * 20 + [300.0, 900.0]), seconds=800, most=50)
    costs = [sum(each.cost for each in shard) for shard in shared]
    assert len(shared) == 3
    assert max(costs) <= 4 / 3 * sum(costs) / 3


def test_the_parameters_of_a_shard_are_references_under_4_kb():
    long = [Work(source=f"s3://bucket/{'x' * 300}/{n}", model=f"m{n}", cost=1.0) for n in range(40)]
    for shard in shards(long, seconds=1e9, most=40):
        assert sum(len(each.source) + 4 for each in shard) < 4096


def test_a_source_below_a_root_keeps_the_options_of_its_url():
    assert below("s3://b/p?endpoint=http://h:1", "m/run") == "s3://b/p/m/run?endpoint=http://h:1"
    assert below("file:///r", "m/run") == "file:///r/m/run"
    assert below("file:///r", "") == "file:///r"


class Counting:
    """A store that counts what it is asked."""

    asked = 0

    def __init__(self, store: FileStore) -> None:
        self._store = store

    def __getattr__(self, name: str) -> object:
        type(self).asked += name != "url"
        return getattr(self._store, name)


@pytest.fixture
def sources(home, staged, tmp_path: Path) -> Path:
    """Eight models, all the same but for their names; m0 was also staged before, under another prefix."""
    for number in range(8):
        staged("linear", name=f"m{number}")
    staged("linear", name="m0", to=str(tmp_path / "sources" / "older" / "m0"))
    early = tmp_path / "sources" / "older" / "m0" / "package.toml"
    os.utime(early, (1, 1))
    return tmp_path / "sources"


def test_of_each_model_the_source_that_was_staged_last_is_planned(sources):
    planned = night.fn([str(sources)], "latest")
    assert sorted(work.model for work in planned.work) == [f"m{number}" for number in range(8)]
    assert (planned.older, planned.unchanged, planned.bad) == (1, 0, ())
    assert not any("older" in work.source for work in planned.work)


def mark_released(sources: Path, count: int) -> None:
    for work in plan_night([str(sources)], "latest").work[:count]:
        spec = nights.parse((Path(work.source.removeprefix("file://")) / "package.toml").read_bytes())
        digest = nights.digest_bytes((Path(work.source.removeprefix("file://")) / "package.toml").read_bytes())
        release = nights.release_inputs(spec, digest).release_id
        channel = Channel(release=release, serial=1, moved_at="2026-01-01T00:00:00+00:00")
        assert worker_context().store.swap(channel_key(work.model, "latest"), dump(channel), expected=None)


def test_a_model_that_is_released_and_unchanged_is_no_work(sources):
    mark_released(sources, 5)
    planned = night.fn([str(sources)], "latest")
    assert (len(planned.work), planned.unchanged) == (3, 5)


def test_an_unchanged_model_costs_at_most_three_requests_listings_counted(sources, monkeypatch):
    (sources / "older" / "m0" / "package.toml").unlink()
    mark_released(sources, 8)
    Counting.asked = 0
    monkeypatch.setattr(nights, "Retrying", lambda store: Counting(store))
    monkeypatch.setattr(worker_context(), "store", Counting(worker_context().store))
    assert plan_night([str(sources)], "latest").unchanged == 8
    assert Counting.asked <= 3 * 8


def test_a_bad_source_is_named_and_stops_no_other(sources):
    (sources / "m3" / "package.toml").write_text("schema = 2\n")
    planned = night.fn([str(sources)], "latest")
    assert len(planned.work) == 7
    (bad,) = planned.bad
    assert bad.source.endswith("/m3")
    assert bad.error["error"] == "SpecInvalid"


def test_a_source_that_says_what_is_not_acted_on_yet_is_named_and_stops_no_other(sources):
    path = sources / "m3" / "package.toml"
    path.write_text(path.read_text().replace("[axes.batch]", "[axes.batch]\nmin = 0", 1).replace("min = 1\n", "", 1))
    planned = night.fn([str(sources)], "latest")
    assert len(planned.work) == 7
    (bad,) = planned.bad
    assert bad.error["where"].endswith("/m3/package.toml")
    assert bad.error["what"].startswith("axes.batch.min = 0: packhouse ")
    with pytest.raises(SpecInvalid, match=r"axes\.batch\.min = 0"):
        plan.fn(str(sources / "m3"))


def test_a_night_without_roots_or_outside_the_allowed_ones_is_refused(sources, monkeypatch):
    with pytest.raises(SpecInvalid, match="PACKHOUSE_SOURCES"):
        night.fn([], "latest")
    monkeypatch.setattr(
        worker_context(), "settings", worker_context().settings.model_copy(update={"sources": ("s3://only/here",)})
    )
    with pytest.raises(SourceNotAllowed):
        night.fn([str(sources)], "latest")
