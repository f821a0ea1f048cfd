"""Finding releases: by channel, by id, or all; and nothing exists that has no record."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from packhouse.digest import digest_bytes
from packhouse.errors import NotFound, ReleaseInvalid
from packhouse.release.lookup import Entry, at_prefix, channels, find, hold, listing, read_channel, releases, tombstone
from packhouse.release.manifest import RECORD, Channel, Hold, Record, Tombstone, channel_key, dump, release_key
from packhouse.release.store_layout import (
    fleet_key,
    hold_key,
    policy_key,
    recalled_key,
    report_key,
    tombstone_key,
    work_key,
)
from packhouse.store import FileStore

IDS = ["0" * 32, "1" * 32]


@pytest.fixture
def store(tmp_path) -> FileStore:
    """Two releases of `a`, one of `b`, one that was never committed; two channels."""
    store = FileStore(tmp_path)
    for model, release in (("a", IDS[0]), ("a", IDS[1]), ("b", IDS[0])):
        put(store, release_key(model, release, "model.onnx"), b"x")
        record = Record(model=model, release=release, manifest=digest_bytes(b""), manifest_size=1)
        put(store, release_key(model, release, RECORD), dump(record))
    put(store, release_key("c", IDS[0], "manifest.json"), b"x")
    for name, serial in (("latest", 7), ("production", 2)):
        channel = Channel(release=IDS[1], serial=serial, moved_at="2030-01-01T00:00:00+00:00")
        put(store, channel_key("a", name), dump(channel))
    return store


def put(store: FileStore, key: str, data: bytes) -> None:
    store.put(key, data, digest=digest_bytes(data))


def test_a_release_is_found_by_channel_and_by_id(store):
    assert find(store, "a@latest").record == find(store, f"a/{IDS[1]}").record
    assert find(store, "a@latest").prefix == f"a/releases/{IDS[1]}/"
    assert read_channel(store, "a", "production").serial == 2


@pytest.mark.parametrize(
    "reference",
    [
        "",
        "a",
        "a/",
        "a@",
        "@latest",
        "/",
        "@",
        "a/b/c",
        "a@b@c",
        "a/x@latest",
        "../a@latest",
        "a@../../b",
        "a b@latest",
        "a@la test",
        "a@latest\n",
        f"a/{'2' * 32}",
        f"c/{IDS[0]}",
        "a@nowhere",
        "b@latest",
        "..@..",
        f"../{IDS[0]}",
    ],
)
def test_what_names_no_release_is_not_found(store, reference):
    with pytest.raises(NotFound):
        find(store, reference)


def test_every_committed_release_is_listed_with_its_channels(store):
    assert list(releases(store)) == [
        Entry("a", IDS[0], ()),
        Entry("a", IDS[1], ("latest#7", "production#2")),
        Entry("b", IDS[0], ()),
    ]
    assert [entry.model for entry in releases(store, "b")] == ["b"]
    assert list(releases(store, "nobody")) == []
    assert list(releases(store, "not a model")) == []


def test_a_channel_in_other_words_is_refused(store):
    data = dump(read_channel(store, "a", "latest"))
    for other in (data[:-1], data.replace(b":7", b":0"), data.replace(b":7", b": 7"), b"{}"):
        put(store, channel_key("a", "latest"), other)
        with pytest.raises(ReleaseInvalid, match=r"a/channels/latest\.json: is not"):
            find(store, "a@latest")


def test_a_folder_without_a_record_is_no_release(store):
    with pytest.raises(NotFound, match=r"a release without a record\.json does not exist"):
        at_prefix(store, release_key("c", IDS[0]))


def held(store: FileStore, model: str, release: str) -> None:
    document = Hold(model=model, release=release, held_at="2030-01-01T00:00:00+00:00", by="ann", reason="a dispute")
    put(store, hold_key(model, release), dump(document))


def buried(store: FileStore, model: str, release: str, **changes: str) -> None:
    given = {"deleted_at": "2030-02-03T00:00:00+00:00", "by": "the night", "reason": "4th of 3 that are kept"}
    put(store, tombstone_key(model, release), dump(Tombstone(**{"model": model, "release": release} | given | changes)))


def packhouse(*arguments: str, store: FileStore) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "packhouse", *arguments, "--store", store.url]
    return subprocess.run(command, env=dict(os.environ), capture_output=True, text=True, check=False)


def test_what_is_held_and_what_was_deleted_is_listed(store):
    held(store, "a", IDS[0])
    buried(store, "b", "f" * 32)
    buried(store, "b", IDS[0])  # deleted, and released once more
    found = listing(store)
    assert [entry.words for entry in found.releases] == [
        f"a/{IDS[0]} held",
        f"a/{IDS[1]} latest#7 production#2",
        f"b/{IDS[0]}",
    ]
    assert [entry.words for entry in found.deleted] == [f"b/{'f' * 32} deleted"]
    assert found.strange == ()
    stands = hold(store, "a", IDS[0])
    assert stands
    assert stands.reason == "a dispute"
    assert hold(store, "a", IDS[1]) is None
    assert [entry.release for entry in releases(store, "b")] == [IDS[0]]


def test_a_hold_that_nobody_can_read_holds_too(store):
    put(store, hold_key("a", IDS[0]), b"damaged")
    assert [entry.held for entry in listing(store, "a").releases] == [True, False]
    with pytest.raises(ReleaseInvalid, match="is not a hold"):
        hold(store, "a", IDS[0])


def test_a_release_that_was_deleted_says_when_by_whom_and_why(store):
    buried(store, "c", IDS[0])
    with pytest.raises(NotFound) as caught:
        find(store, f"c/{IDS[0]}")
    words = "was deleted 2030-02-03T00:00:00+00:00 by the night: 4th of 3 that are kept (PH-0190)"
    assert str(caught.value) == f"c/{IDS[0]}: {words}"
    done = packhouse("verify", f"c/{IDS[0]}", store=store)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", f"refused: c/{IDS[0]}: {words}\n")
    put(store, release_key("c", IDS[0], RECORD), dump(find(store, f"b/{IDS[0]}").record))
    assert find(store, f"c/{IDS[0]}"), "it was released once more"


def test_a_tombstone_of_another_release_is_none_of_this_one(store):
    stone = Tombstone(model="c", release=IDS[1], deleted_at="2030-01-01T00:00:00+00:00", reason="x")
    put(store, tombstone_key("c", IDS[0]), dump(stone))
    with pytest.raises(ReleaseInvalid, match=f"is about another release; got c/{IDS[1]}"):
        tombstone(store, "c", IDS[0])


def test_the_stores_own_areas_are_no_models_and_no_strangers(store):
    for key in (work_key("runs/x.json"), report_key("run/x.html"), fleet_key("night.json"), recalled_key("list.json")):
        put(store, key, b"x")
    put(store, policy_key("a"), b"schema = 1\n")
    put(store, "_work/channels/x.json", b"not a channel")
    put(store, f"_work/releases/x/{RECORD}", b"not a record")
    done = packhouse("ls", store=store)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [entry.words for entry in releases(store)]
    assert channels(store) == [("a", "latest"), ("a", "production")]


def test_keys_that_are_nobodys_are_named_up_to_five_of_them(store):
    put(store, "a/notes.txt", b"x")
    one = packhouse("ls", "a", store=store)
    assert one.stderr == "a/notes.txt: is nobody's, and is left alone\n"
    for number in range(7):
        put(store, f"stray/{number}", b"x")
    many = packhouse("ls", store=store)
    assert many.returncode == 0
    assert [line.partition(":")[0] for line in many.stderr.splitlines()] == [
        "a/notes.txt",
        *(f"stray/{number}" for number in range(4)),
        "and 3 more that are nobody's",
    ]
    assert many.stdout.splitlines() == [entry.words for entry in releases(store)]
