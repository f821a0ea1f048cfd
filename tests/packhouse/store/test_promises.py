"""What every store promises, whatever is behind it."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from packhouse.digest import MiB, digest_bytes, digest_file
from packhouse.errors import DigestMismatch, LimitExceeded, NotFound
from packhouse.store import open_store
from tests.support.store_places import S3Place

BODY = b"weights of a model"
DIGEST = digest_bytes(BODY)


def put(store, key, body=BODY):
    store.put(key, body, digest=digest_bytes(body))


def read(store, key, body=BODY):
    return b"".join(store.read(key, digest=digest_bytes(body), size=len(body)))


def keys(store, prefix=""):
    return [found.key for found in store.list(prefix)]


def test_what_was_put_is_read_back(store):
    put(store, "a/b/model.onnx")
    assert read(store, "a/b/model.onnx") == BODY
    assert store.get("a/b/model.onnx", limit=100)[0] == BODY


def test_a_file_is_put_and_read_back(store, tmp_path):
    path = tmp_path / "weights"
    path.write_bytes(os.urandom(3 * MiB + 17))
    store.put("weights", path, digest=digest_file(path))
    assert b"".join(store.read("weights", digest=digest_file(path), size=3 * MiB + 17)) == path.read_bytes()


def test_an_empty_object_is_an_object(store):
    put(store, "empty", b"")
    assert store.stat("empty").size == 0
    assert read(store, "empty", b"") == b""
    assert store.get("empty", limit=0)[0] == b""


def test_put_replaces(store):
    put(store, "k", b"old")
    put(store, "k", b"newer")
    assert store.get("k", limit=10)[0] == b"newer"


def test_a_version_changes_with_the_bytes_and_is_the_same_from_stat_get_and_list(store):
    put(store, "k", b"1")
    first = store.stat("k")
    put(store, "k", b"2")
    second = store.stat("k")
    assert first.version != second.version
    assert store.get("k", limit=10)[1] == second.version
    assert list(store.list()) == [second]


def test_a_tampered_object_is_refused_when_read(store):
    put(store, "k", BODY.replace(b"model", b"MODEL"))
    with pytest.raises(DigestMismatch, match="sha256 differs"):
        b"".join(store.read("k", digest=DIGEST, size=len(BODY)))


@pytest.mark.parametrize("other", [BODY + b"!", BODY[:-1], b""], ids=["too long", "too short", "empty"])
def test_an_object_of_another_size_is_refused_before_a_byte_is_taken(store, other):
    put(store, "k", other)
    with pytest.raises(DigestMismatch, match="size differs"):
        store.read("k", digest=DIGEST, size=len(BODY))


def test_a_body_that_is_not_what_its_digest_says_is_not_written(store, tmp_path):
    path = tmp_path / "weights"
    path.write_bytes(b"other bytes")
    for body in (b"other bytes", path):
        with pytest.raises(DigestMismatch):
            store.put("k", body, digest=DIGEST)
        with pytest.raises(DigestMismatch):
            store.put_if_absent("k", body, digest=DIGEST)
        assert store.stat("k") is None


def test_a_refused_put_leaves_the_old_object(store, tmp_path):
    put(store, "k")
    path = tmp_path / "weights"
    path.write_bytes(b"other bytes")
    with pytest.raises(DigestMismatch):
        store.put("k", path, digest=digest_bytes(b"yet others"))
    assert read(store, "k") == BODY


def test_what_is_not_there_is_not_found(store):
    assert store.stat("a/b") is None
    with pytest.raises(NotFound, match="a/b"):
        store.read("a/b", digest=DIGEST, size=len(BODY))
    with pytest.raises(NotFound):
        store.get("a/b", limit=10)
    with pytest.raises(NotFound):
        store.copy("a/b", "c")
    assert keys(store) == []


def test_a_file_that_is_not_there_is_named(store, tmp_path):
    with pytest.raises(NotFound, match="absent"):
        store.put("k", tmp_path / "absent", digest=DIGEST)


def test_a_document_over_its_limit_is_not_taken(store):
    put(store, "k")
    with pytest.raises(LimitExceeded, match="18 bytes"):
        store.get("k", limit=17)


def test_deleting_is_done_and_deleting_again_is_no_error(store):
    put(store, "a/b/c")
    store.delete("a/b/c")
    store.delete("a/b/c")
    assert store.stat("a/b/c") is None
    assert keys(store) == []
    put(store, "a/b/c")
    assert keys(store) == ["a/b/c"]


def test_a_copy_is_equal_and_replaces(store):
    put(store, "from/a")
    put(store, "to/b", b"old")
    store.copy("from/a", "to/b")
    store.copy("from/a", "to/c@1+2=3")
    assert read(store, "to/b") == read(store, "to/c@1+2=3") == BODY
    put(store, "from/a", b"changed")
    assert read(store, "to/b") == BODY


def test_objects_are_listed_in_code_point_order_below_a_prefix(store):
    names = ["a", "a-1/x", "a.b/x", "aa", "b/A", "b/_", "b/a+1", "b/a/1", "b/a=1", "b/a@1", "b0"]
    for name in reversed(names):
        put(store, name)
    assert keys(store) == sorted(names)
    assert keys(store, "b/") == sorted(name for name in names if name.startswith("b/"))
    assert keys(store, "b/a") == sorted(name for name in names if name.startswith("b/a"))
    assert keys(store, "b/a/") == ["b/a/1"]
    assert keys(store, "c") == keys(store, "b/a/1/") == []
    assert all(found.size == len(BODY) for found in store.list())


def test_a_listing_goes_on_after_a_thousand_objects(place, store):
    if place.name == "swift":
        pytest.skip("83 writes a second: the paging is the same code as on the other two")
    names = [f"many/{n:04}" for n in range(1005)]
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda name: put(store, name, b""), names))
    assert keys(store, "many/") == names


@pytest.mark.parametrize(
    "key",
    ["", "/a", "a/", "a//b", ".", "..", "a/../b", "./a", "a b", "ä", "a\\b", "a\nb", ".tmp/x", ".locks", "x" * 201],
)
def test_what_is_no_key_is_refused_by_every_method(store, key):
    calls = [
        lambda: store.stat(key),
        lambda: store.read(key, digest=DIGEST, size=1),
        lambda: store.get(key, limit=1),
        lambda: store.put(key, BODY, digest=DIGEST),
        lambda: store.put_if_absent(key, BODY, digest=DIGEST),
        lambda: store.copy(key, "k"),
        lambda: store.copy("k", key),
        lambda: store.delete(key),
    ]
    put(store, "k")
    for call in calls:
        with pytest.raises(ValueError, match="not a key"):
            call()


def test_a_prefix_that_no_key_can_have_is_refused(store):
    for prefix in ("/", "a//b", "../", "a b"):
        with pytest.raises(ValueError, match="not "):
            list(store.list(prefix))


def test_the_url_opens_the_same_store_again(place, store, monkeypatch):
    put(store, "k")
    for name, setting in place.environment().items():
        monkeypatch.setenv(name, setting)
    again = open_store(store.url)
    assert again.url == store.url
    assert read(again, "k") == BODY
    if isinstance(place, S3Place):
        assert place.endpoint.secret_key not in again.url


def test_many_at_once_do_not_disturb_each_other(store):
    def write_and_read(n):
        body = f"body {n}".encode() * 1000
        for turn in range(3):
            key = f"busy/{n % 3}/{n}-{turn}"
            put(store, key, body)
            assert read(store, key, body) == body
            store.delete(key)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write_and_read, range(16)))
    assert keys(store) == []
