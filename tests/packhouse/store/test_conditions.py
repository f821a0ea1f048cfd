"""Put-if-absent and compare-and-swap, one at a time and against others."""

from __future__ import annotations

import secrets
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from packhouse.digest import digest_bytes
from packhouse.errors import Contention, Refused
from packhouse.store import probe
from tests.support.rude_store import losing_one_answer
from tests.support.store_places import EXPECTED, S3Place

WRITERS = 16


def put_if_absent(store, key, body):
    return store.put_if_absent(key, body, digest=digest_bytes(body))


@pytest.fixture
def swapping(store, found):
    if not found.swap:
        pytest.skip("this store cannot compare-and-swap, and says so: see the test of that")
    return store


@pytest.mark.quiet  # moto checks and then writes: where threads wait long, its put-if-absent lets several win
def test_the_probe_finds_what_this_server_is_known_to_keep(place, found):
    assert found == EXPECTED[place.name]


def test_the_probe_leaves_nothing(adapter):
    probe(adapter)
    assert list(adapter.list()) == []


def test_the_first_put_if_absent_wins_and_stays(store, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"second")
    assert put_if_absent(store, "k", b"first")
    assert not put_if_absent(store, "k", b"second")
    assert not put_if_absent(store, "k", b"first")
    assert not store.put_if_absent("k", path, digest=digest_bytes(b"second"))
    assert store.get("k", limit=10)[0] == b"first"


@pytest.mark.quiet  # moto checks and then writes: where threads wait long, its put-if-absent lets several win
def test_one_of_many_racing_writers_wins(store, found):
    if not found.put_if_absent_atomic:
        pytest.skip("the probe says that this store lets several win")
    for key in ("r/1", "r/2", "r/3", "r/4", "r/5"):
        bodies = [f"writer {n}".encode() for n in range(WRITERS)]
        line = threading.Barrier(WRITERS)

        def race(body, key=key, line=line):
            line.wait()
            return put_if_absent(store, key, body)

        with ThreadPoolExecutor(WRITERS) as pool:
            won = list(pool.map(race, bodies))
        assert [body for body, first in zip(bodies, won, strict=True) if first] == [store.get(key, limit=100)[0]]


def test_equal_bytes_are_there_after_a_race_even_on_a_store_that_races(store):
    line = threading.Barrier(WRITERS)

    def race(_):
        line.wait()
        return put_if_absent(store, "record", b"equal bytes")

    with ThreadPoolExecutor(WRITERS) as pool:
        assert any(pool.map(race, range(WRITERS)))
    assert store.get("record", limit=100)[0] == b"equal bytes"


def test_swap_writes_only_over_the_expected_version(swapping):
    assert swapping.swap("p", b"1", expected=None)
    assert not swapping.swap("p", b"x", expected=None)
    first = swapping.stat("p").version
    assert swapping.swap("p", b"2", expected=first)
    assert not swapping.swap("p", b"3", expected=first)
    assert swapping.get("p", limit=10)[0] == b"2"


def test_swap_of_what_is_gone_writes_nothing(swapping):
    swapping.swap("p", b"1", expected=None)
    version = swapping.stat("p").version
    swapping.delete("p")
    assert not swapping.swap("p", b"2", expected=version)
    assert swapping.stat("p") is None


def test_no_increment_is_lost_among_racing_counters(swapping):
    swapping.swap("counter", b"0", expected=None)

    def count(_):
        done = 0
        while done < 10:
            body, version = swapping.get("counter", limit=100)
            try:
                done += swapping.swap("counter", str(int(body) + 1).encode(), expected=version)
            except Contention:
                continue

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(count, range(8)))
    assert swapping.get("counter", limit=100)[0] == b"80"


def test_a_store_without_compare_and_swap_refuses_it_and_says_what_to_use(store, adapter, found):
    if found.swap:
        pytest.skip("this store can")
    with pytest.raises(Refused, match=r"cannot compare-and-swap.*keep channels in"):
        store.swap("p", b"1", expected=None)
    put_if_absent(adapter, "p", b"1")
    with pytest.raises(Refused, match="cannot"):
        adapter.swap("p", b"2", expected=adapter.stat("p").version)


def test_a_write_whose_answer_is_lost_is_known_as_ours(s3_place: S3Place):
    prefix = secrets.token_hex(6)
    with losing_one_answer(s3_place.endpoint.url) as relay:
        assert put_if_absent(s3_place.open(prefix, through=relay), "k", b"ours")
    assert s3_place.open(prefix).get("k", limit=10)[0] == b"ours"


def test_a_write_of_others_is_not_taken_for_ours_after_a_lost_answer(s3_place: S3Place):
    prefix = secrets.token_hex(6)
    theirs = s3_place.open(prefix)
    with losing_one_answer(s3_place.endpoint.url, instead=lambda: put_if_absent(theirs, "k", b"theirs")) as relay:
        assert not put_if_absent(s3_place.open(prefix, through=relay), "k", b"ours")
    assert theirs.get("k", limit=10)[0] == b"theirs"


def test_a_swap_whose_answer_is_lost_is_known_as_ours(s3_place: S3Place):
    if not EXPECTED[s3_place.name].swap:
        pytest.skip("this store cannot compare-and-swap")
    prefix = secrets.token_hex(6)
    there = s3_place.open(prefix)
    there.swap("p", b"1", expected=None)
    with losing_one_answer(s3_place.endpoint.url) as relay:
        assert s3_place.open(prefix, through=relay).swap("p", b"2", expected=there.stat("p").version)
    assert there.get("p", limit=10)[0] == b"2"
