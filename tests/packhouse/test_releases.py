"""Finding releases: by channel, by id, or all; and nothing exists that has no record."""

from __future__ import annotations

import pytest

from packhouse.digest import digest_bytes
from packhouse.errors import NotFound, ReleaseInvalid
from packhouse.manifest import RECORD, Channel, Record, channel_key, dump, release_key
from packhouse.releases import Entry, at_prefix, find, read_channel, releases
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
