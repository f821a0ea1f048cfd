"""What a store keeps of its promises, found out by asking: about a second, on a few small objects of its own.

Some stores race put-if-absent, some cannot compare-and-swap, some store a body that is not what was declared, and
none of them says so. A race is sampled: "atomic" means that no lost race was seen, not that none can be.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from packhouse.digest import digest_bytes
from packhouse.errors import Contention, DigestMismatch, Refused
from packhouse.store.base import Adapter, Capabilities, Store

RACERS = 8
RACED_KEYS = 6
COUNTERS = 4
INCREMENTS = 2
_TRIES = 50
_LIMIT = 1024

T = TypeVar("T")
R = TypeVar("R")


def probe(store: Adapter) -> Capabilities:
    """Needs the right to write, read, list and delete below `_probe/`; leaves nothing. Raises the store's errors."""
    under = f"_probe/{secrets.token_hex(8)}"
    try:
        present = _keeps_what_is_there(store, f"{under}/present")
        return Capabilities(
            put_if_absent=present,
            put_if_absent_atomic=present
            and all(_has_one_winner(store, f"{under}/race-{n}") for n in range(RACED_KEYS)),
            swap=_swaps(store, f"{under}/swap") and _counts(store, f"{under}/counter"),
            sha256_checked=_compares_sha256(store, f"{under}/declared"),
        )
    finally:
        for found in list(store.list(f"{under}/")):
            store.delete(found.key)


def _keeps_what_is_there(store: Store, key: str) -> bool:
    first = store.put_if_absent(key, b"first", digest=digest_bytes(b"first"))
    second = _asks(store, key, b"second")
    return first and not second and store.get(key, limit=_LIMIT)[0] == b"first"


def _asks(store: Store, key: str, body: bytes) -> bool:
    """swap(None) is the bare condition; put_if_absent may look first, and hide that the store ignores it."""
    return store.swap(key, body, expected=None)


def _has_one_winner(store: Store, key: str) -> bool:
    bodies = [f"writer {n}".encode() for n in range(RACERS)]
    line = threading.Barrier(RACERS, timeout=60)

    def race(body: bytes) -> bool:
        line.wait()
        return _asks(store, key, body)

    winners = [body for body, won in zip(bodies, _at_once(race, bodies), strict=True) if won]
    return winners == [store.get(key, limit=_LIMIT)[0]]


def _swaps(store: Store, key: str) -> bool:
    """The right version swaps, a stale one and "absent" do not."""
    try:
        if not store.swap(key, b"1", expected=None):
            return False
        first = _version(store, key)
        swapped = store.swap(key, b"2", expected=first)
        stale = store.swap(key, b"3", expected=first) or store.swap(key, b"4", expected=None)
    except Refused:
        return False
    return swapped and not stale and store.get(key, limit=_LIMIT)[0] == b"2"


def _counts(store: Store, key: str) -> bool:
    """No increment is lost among some counters."""
    store.put(key, b"0", digest=digest_bytes(b"0"))

    def count(_: int) -> int:
        return sum(_increment(store, key) for _ in range(INCREMENTS))

    done = sum(_at_once(count, list(range(COUNTERS))))
    return int(store.get(key, limit=_LIMIT)[0].split()[0]) == done > 0


def _increment(store: Store, key: str) -> bool:
    for _ in range(_TRIES):
        body, version = store.get(key, limit=_LIMIT)
        # The second word makes equal counts of different writers different documents.
        following = f"{int(body.split()[0]) + 1} {secrets.token_hex(4)}".encode()
        try:
            if store.swap(key, following, expected=version):
                return True
        except Contention:
            continue
    return False


def _compares_sha256(store: Adapter, key: str) -> bool:
    try:
        store.put_declared(key, b"these bytes", digest=digest_bytes(b"other bytes"))
    except DigestMismatch:
        return store.stat(key) is None
    return False


def _version(store: Store, key: str) -> str:
    return store.get(key, limit=_LIMIT)[1]


def _at_once(act: Callable[[T], R], things: list[T]) -> list[R]:
    with ThreadPoolExecutor(len(things)) as pool:
        return list(pool.map(act, things))
