"""Objects that go up in parts: the same promises."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from packhouse.digest import MiB, digest_bytes, digest_file
from packhouse.errors import DigestMismatch
from packhouse.store.s3_client import S3Limits
from tests.support.store_places import BUCKET, QUICK

SIZE = 11 * MiB + 3
LIMITS = replace(QUICK, single_put_bytes=MiB, single_copy_bytes=MiB, part_bytes=5 * MiB)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "large"
    path.write_bytes(os.urandom(SIZE))
    return path


@pytest.fixture
def store(s3_place):
    return s3_place.fresh(LIMITS)


def unfinished(place):
    return place.client().list_multipart_uploads(Bucket=BUCKET).get("Uploads", [])


def test_a_large_file_goes_up_in_parts_and_comes_back_whole(store, file, s3_place):
    store.put("k", file, digest=digest_file(file))
    assert b"".join(store.read("k", digest=digest_file(file), size=SIZE)) == file.read_bytes()
    assert store.stat("k").version.strip('"').endswith("-3")
    assert unfinished(s3_place) == []


def test_a_large_file_is_put_only_if_absent(store, file):
    assert store.put_if_absent("k", file, digest=digest_file(file))
    assert not store.put_if_absent("k", file, digest=digest_file(file))


def test_the_last_step_of_a_large_upload_holds_the_condition(store, file, monkeypatch):
    store.put("k", b"first", digest=digest_bytes(b"first"))
    monkeypatch.setattr(type(store), "stat", lambda *_: None)  # as if the other writer came after our look
    assert not store.put_if_absent("k", file, digest=digest_file(file))
    assert store.get("k", limit=10)[0] == b"first"


def test_a_large_file_that_is_not_what_its_digest_says_is_not_there_and_leaves_no_parts(store, file, s3_place):
    with pytest.raises(DigestMismatch):
        store.put("k", file, digest=digest_bytes(b"others"))
    assert store.stat("k") is None
    assert unfinished(s3_place) == []


def test_a_large_object_is_copied_in_parts(store, file):
    store.put("k", file, digest=digest_file(file))
    store.copy("k", "copy")
    assert b"".join(store.read("copy", digest=digest_file(file), size=SIZE)) == file.read_bytes()


def test_a_very_large_object_has_no_more_parts_than_s3_allows():
    limits = S3Limits()
    for size in (1, 5 * 1024**3, 5 * 1024**4):
        assert -(-size // limits.part_size(size)) <= 10_000


def test_parts_smaller_than_s3_allows_are_refused():
    with pytest.raises(ValueError, match="at least"):
        S3Limits(part_bytes=MiB)
