"""What only a store in a folder can get wrong."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import subprocess
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from packhouse.digest import MiB, digest_bytes
from packhouse.errors import Contention, DigestMismatch, Refused, StoreFull, StoreUnavailable, Unavailable
from packhouse.store import FileStore, StoreRefusal, atomic
from packhouse.store.folders import disk_errors
from tests.servers import place

BODY = b"body"
DIGEST = digest_bytes(BODY)
NAME = st.text("ab.-/0_A", min_size=1, max_size=6)


@pytest.fixture
def root(tmp_path):
    return tmp_path / "store"


@pytest.fixture
def store(root):
    return FileStore(root)


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 1 MiB."""
    with place.small_disk(tmp_path / "disk", "1m") as disk:
        yield disk


def put(store, key, body=BODY):
    store.put(key, body, digest=digest_bytes(body))


def leftovers(root):
    return list((root / ".tmp").iterdir())


def test_a_full_disk_is_named_and_leaves_nothing(small_disk, tmp_path):
    store = FileStore(small_disk)
    large = tmp_path / "large"
    large.write_bytes(bytes(2 * MiB))
    digest = digest_bytes(bytes(2 * MiB))
    for write in (store.put, store.put_if_absent):
        with pytest.raises(StoreFull, match=f"{small_disk}/k"):
            write("k", large, digest=digest)
    assert list(store.list()) == leftovers(small_disk) == []
    put(store, "k")
    with pytest.raises(StoreFull):
        store.put("k", large, digest=digest)
    assert store.get("k", limit=10)[0] == BODY


def test_a_read_only_disk_refuses_writes_and_is_read(small_disk):
    store = FileStore(small_disk)
    put(store, "k")
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    with pytest.raises(StoreRefusal, match=f"{small_disk}/k.*Read-only"):
        put(FileStore(small_disk), "k")
    assert FileStore(small_disk).get("k", limit=10)[0] == BODY
    assert [found.key for found in FileStore(small_disk).list()] == ["k"]


@pytest.mark.parametrize(
    "number, kind",
    [
        (errno.ENOSPC, StoreFull),
        (errno.EDQUOT, StoreFull),
        (errno.EACCES, StoreRefusal),
        (errno.EROFS, StoreRefusal),
        (errno.EIO, StoreUnavailable),
        (errno.ESTALE, StoreUnavailable),
    ],
)
def test_a_disks_errors_have_names_and_a_path(number, kind):
    with pytest.raises(Unavailable, match="/the/path") as caught, disk_errors("/the/path"):
        raise OSError(number, "x")
    assert type(caught.value) is kind


def test_a_symbolic_link_is_never_followed(store, root, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(BODY)
    put(store, "a/k")
    (root / "link").symlink_to(outside / "secret")
    (root / "a/folder").symlink_to(outside)
    for key in ("link", "a/folder/secret"):
        for call in (
            lambda key: store.stat(key),
            lambda key: store.get(key, limit=10),
            lambda key: store.read(key, digest=DIGEST, size=4),
            lambda key: put(store, key, b"evil"),
            lambda key: store.put_if_absent(key, BODY, digest=DIGEST),
            lambda key: store.copy("a/k", key),
            lambda key: store.delete(key),
        ):
            with pytest.raises(Refused, match="symbolic link"):
                call(key)
    assert [found.key for found in store.list()] == ["a/k"]
    assert (outside / "secret").read_bytes() == BODY


def test_a_planted_link_for_temporary_files_is_not_followed(root, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    root.mkdir()
    (root / ".tmp").symlink_to(outside)
    with pytest.raises(Refused, match="symbolic link"):
        put(FileStore(root), "k")
    assert list(outside.iterdir()) == []


def test_a_pipe_is_no_object(store, root):
    put(store, "k")
    os.mkfifo(root / "pipe")
    assert store.stat("pipe") is None
    assert [found.key for found in store.list()] == ["k"]


def test_a_key_cannot_be_an_object_and_a_folder(store):
    put(store, "a")
    put(store, "f/b")
    for key in ("a/b", "f"):
        with pytest.raises(Refused, match="both an object"):
            put(store, key)
        with pytest.raises(Refused, match="both an object"):
            store.put_if_absent(key, BODY, digest=DIGEST)
        assert store.stat(key) is None
    assert list(store.list("a/")) == []


def test_a_store_is_not_a_file(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(Refused, match="is a folder"):
        FileStore(tmp_path / "file")


def test_a_refused_body_leaves_no_temporary_file(store, root):
    with pytest.raises(DigestMismatch):
        store.put("k", b"others", digest=DIGEST)
    assert leftovers(root) == []


def test_what_a_killed_writer_left_is_swept_a_day_later_and_not_before(store, root, killed_writer):
    killed_writer(store.url, {})
    (left,) = leftovers(root)
    assert left.stat().st_size > 0
    put(FileStore(root), "k")
    assert leftovers(root) == [left]
    yesterday = time.time() - atomic.ABANDONED_S - 60
    os.utime(left, (yesterday, yesterday))
    put(FileStore(root), "k")
    assert leftovers(root) == []
    assert [found.key for found in store.list()] == ["k"]


def test_deleting_the_last_object_removes_its_folders(store, root):
    put(store, "a/b/c")
    put(store, "a/d")
    store.delete("a/b/c")
    assert not (root / "a/b").exists()
    assert (root / "a/d").exists()


def test_an_absent_store_is_empty_and_is_not_made_by_looking(store, root):
    assert store.stat("k") is None
    assert list(store.list()) == []
    store.delete("k")
    assert not root.exists()


def test_quick_writes_of_one_size_have_different_versions():
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        store, seen = FileStore(Path(folder)), set()
        for n in range(300):
            put(store, "k", b"%03d" % n)
            seen.add(store.stat("k").version)
        assert len(seen) == 300


def test_a_version_does_not_hang_on_the_kernels_tick(store, root, monkeypatch):
    """Older kernels stamp files every 4 ms, newer ones more finely: only the clock is fine enough everywhere."""
    a_time = 1_700_000_000_123_456_789
    monkeypatch.setattr(atomic.time, "time_ns", lambda: a_time)
    put(store, "k")
    assert (root / "k").stat().st_mtime_ns == a_time


def test_a_lock_that_is_never_let_go_ends_the_wait(store, root, monkeypatch):
    monkeypatch.setattr(atomic, "LOCK_WAIT_S", 0.2)
    put(store, "k")
    with (root / ".locks" / hashlib.sha256(b"k").hexdigest()[:2]).open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(Contention, match="held the lock"):
            put(store, "k", b"new")
    assert store.get("k", limit=10)[0] == BODY


def test_an_object_does_not_change_when_the_file_it_came_from_does(store, tmp_path):
    source = tmp_path / "source"
    source.write_bytes(BODY)
    store.put("k", source, digest=DIGEST)
    with source.open("r+b") as file:
        file.write(b"X")
    assert store.get("k", limit=10)[0] == BODY


def test_a_reader_keeps_the_bytes_it_began_with(store):
    put(store, "k")
    stream = store.read("k", digest=DIGEST, size=4)
    put(store, "k", b"others")
    store.delete("k")
    assert b"".join(stream) == BODY


@given(st.sets(NAME, min_size=1, max_size=8), NAME)
def test_any_keys_are_listed_in_code_point_order(names, prefix):
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        store, kept = FileStore(Path(folder)), []
        for name in sorted(names):
            try:
                put(store, name)
            except (ValueError, Refused):
                continue
            kept.append(name)
        assert [found.key for found in store.list()] == sorted(kept)
        try:
            below = [found.key for found in store.list(prefix)]
        except ValueError:
            assert not any(name.startswith(prefix) for name in kept)
        else:
            assert below == sorted(name for name in kept if name.startswith(prefix))
