"""Retrying and Guarded, over a store whose faults are chosen."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from packhouse.digest import digest_bytes
from packhouse.errors import DigestMismatch, NotFound, Refused, StoreFull, StoreUnavailable
from packhouse.store import Capabilities, FileStore, Guarded, Patience, Retrying, StoreRefusal, guard
from tests.support.store_places import ALL

BODY = b"body"
DIGEST = digest_bytes(BODY)
DOWN = StoreUnavailable("down")


class Faulty:
    """A store that fails as its script says: `before` an act, or `after` it, when it is done and its answer lost."""

    def __init__(self, store: FileStore, *script: tuple[str, Exception] | None) -> None:
        self.store, self.script, self.calls = store, list(script), 0

    def __getattr__(self, name: str) -> Any:
        act = getattr(self.store, name)

        def call(*arguments: Any, **named: Any) -> Any:
            self.calls += 1
            fault = self.script.pop(0) if self.script else None
            if fault and fault[0] == "before":
                raise fault[1]
            result = act(*arguments, **named)
            if fault and fault[0] == "after":
                raise fault[1]
            return _breaking(result, fault[1]) if fault else result

        return call


def _breaking(stream: Iterator[Any], error: Exception) -> Iterator[Any]:
    yield next(stream)
    raise error


@pytest.fixture
def files(tmp_path):
    return FileStore(tmp_path / "store")


def retrying(store, **patience):
    waits = []
    return Retrying(store, Patience(sleep=waits.append, **patience)), waits


def test_a_store_that_comes_back_is_asked_again(files):
    store, waits = retrying(Faulty(files, ("before", DOWN), ("after", DOWN)))
    store.put("k", BODY, digest=DIGEST)
    assert files.get("k", limit=10)[0] == BODY
    assert len(waits) == 2


def test_a_store_that_stays_away_is_asked_a_bounded_number_of_times(files):
    faulty = Faulty(files, *[("before", DOWN)] * 99)
    store, waits = retrying(faulty, attempts=4)
    with pytest.raises(StoreUnavailable):
        store.stat("k")
    assert (faulty.calls, len(waits)) == (4, 3)


def test_no_new_try_begins_after_the_total_time(files):
    faulty, now = Faulty(files, *[("before", DOWN)] * 99), [0.0]
    patience = Patience(attempts=99, total_s=10, first_pause_s=3, sleep=lambda s: None, clock=lambda: now[0])

    def slow():
        now[0] += 4
        return faulty.stat("k")

    with pytest.raises(StoreUnavailable):
        Retrying(faulty, patience)._again(slow)
    assert faulty.calls <= 3


@pytest.mark.parametrize("error", [StoreRefusal("who are you"), StoreFull("full"), NotFound("gone"), Refused("no")])
def test_what_trying_again_cannot_help_is_raised_at_once(files, error):
    faulty = Faulty(files, ("before", error))
    store, waits = retrying(faulty)
    with pytest.raises(type(error)):
        store.stat("k")
    assert (faulty.calls, waits) == (1, [])


def test_pauses_grow_and_are_bounded():
    patience = Patience(first_pause_s=1, longest_pause_s=5)
    longest = [max(patience.pause(tried) for _ in range(500)) for tried in (1, 2, 3, 9)]
    for bound, seen in zip((1, 2, 4, 5), longest, strict=True):
        assert bound / 2 < seen <= bound


def test_a_write_without_an_answer_is_known_as_ours(files):
    for write in (
        lambda store, key: store.put_if_absent(key, BODY, digest=DIGEST),
        lambda store, key: store.swap(key, BODY, expected=None),
    ):
        key = f"k{len(list(files.list()))}"
        assert write(retrying(Faulty(files, ("after", DOWN)))[0], key)
        assert files.get(key, limit=10)[0] == BODY


def test_a_write_of_somebody_else_is_not_taken_for_ours(files):
    files.put("k", b"theirs", digest=digest_bytes(b"theirs"))
    store, _ = retrying(Faulty(files, ("before", DOWN)))
    assert not store.put_if_absent("k", BODY, digest=DIGEST)
    store, _ = retrying(Faulty(files, ("before", DOWN)))
    assert not store.swap("k", BODY, expected="a version of long ago")


def test_an_equal_object_that_was_there_before_is_not_ours_without_a_lost_answer(files):
    files.put("k", BODY, digest=DIGEST)
    store, _ = retrying(Faulty(files))
    assert not store.put_if_absent("k", BODY, digest=DIGEST)


def test_a_stream_that_breaks_in_the_middle_is_not_begun_again_behind_the_readers_back(files):
    files.put("k", BODY, digest=DIGEST)
    faulty = Faulty(files, ("middle", DOWN))
    store, waits = retrying(faulty)
    stream = store.read("k", digest=DIGEST, size=4)
    assert next(stream) == BODY
    with pytest.raises(StoreUnavailable):
        next(stream)
    assert (faulty.calls, waits) == (1, [])


def test_a_stream_that_does_not_begin_is_asked_for_again(files):
    files.put("k", BODY, digest=DIGEST)
    store, waits = retrying(Faulty(files, ("before", DOWN)))
    assert b"".join(store.read("k", digest=DIGEST, size=4)) == BODY
    store, _ = retrying(Faulty(files, ("before", DOWN)))
    assert [found.key for found in store.list()] == ["k"]
    files.put("k", b"", digest=digest_bytes(b""))
    assert list(store.read("k", digest=digest_bytes(b""), size=0)) == []
    assert len(waits) == 1


def test_a_store_that_keeps_everything_is_not_wrapped(files):
    assert guard(files, ALL) is files


def test_a_wrong_digest_is_found_here_where_the_store_does_not_look(files):
    faulty = Faulty(files)
    store = Guarded(faulty, replace(ALL, sha256_checked=False))
    for write in (store.put, store.put_if_absent):
        with pytest.raises(DigestMismatch):
            write("k", b"others", digest=DIGEST)
    assert faulty.calls == 0


class Forgetful(Faulty):
    """Ignores the condition, as some stores do."""

    def put_if_absent(self, key: str, body: bytes, *, digest: str) -> bool:
        self.store.put(key, body, digest=digest)
        return True


def test_a_store_that_ignores_the_condition_is_looked_at_first(files):
    store = Guarded(Forgetful(files), Capabilities(False, False, False, True))
    assert store.put_if_absent("k", BODY, digest=DIGEST)
    assert not store.put_if_absent("k", b"new", digest=digest_bytes(b"new"))
    assert files.get("k", limit=10)[0] == BODY


class Overtaken(Faulty):
    """Says "written", and a second later another winner's bytes are there."""

    def put_if_absent(self, key: str, body: bytes, *, digest: str) -> bool:
        self.store.put(key, b"theirs", digest=digest_bytes(b"theirs"))
        return True


def test_a_winner_whose_bytes_are_not_there_afterwards_has_lost(files):
    store = Guarded(Overtaken(files), replace(ALL, put_if_absent_atomic=False))
    assert not store.put_if_absent("k", BODY, digest=DIGEST)
