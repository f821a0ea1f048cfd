"""A store with the probe's findings built in: what it does not keep is done another way, or refused.

Putting if absent on a store that races or ignores the condition is let through for one reason: all that packhouse
writes so is made from the same inputs under the same name, so that two winners write equal bytes. It is read back
and compared all the same. Moving a pointer has no such excuse: without compare-and-swap it is refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from packhouse.digest import verified
from packhouse.errors import Refused
from packhouse.store.base import Capabilities, Stat, Store, holds_bytes
from packhouse.store.body import opened

NO_SWAP = "releases are safe here, but keep channels in a store that can: file://, AWS S3, Ceph RGW 20 (docs/stores.md)"


def guard(store: Store, found: Capabilities) -> Store:
    """The store itself where it keeps every promise."""
    return store if found == Capabilities(True, True, True, True) else Guarded(store, found)


class Guarded:
    def __init__(self, store: Store, found: Capabilities) -> None:
        self._store, self._found = store, found

    @property
    def url(self) -> str:
        return self._store.url

    def stat(self, key: str) -> Stat | None:
        return self._store.stat(key)

    def read(self, key: str, *, digest: str, size: int) -> Iterator[bytes]:
        return self._store.read(key, digest=digest, size=size)

    def get(self, key: str, *, limit: int) -> tuple[bytes, str]:
        return self._store.get(key, limit=limit)

    def put(self, key: str, body: bytes | Path, *, digest: str) -> None:
        self._compare(key, body, digest)
        self._store.put(key, body, digest=digest)

    def put_if_absent(self, key: str, body: bytes | Path, *, digest: str) -> bool:
        """Where the store may let several writers win: True only if our bytes are there afterwards."""
        if not self._found.put_if_absent and self._store.stat(key):
            return False
        self._compare(key, body, digest)
        written = self._store.put_if_absent(key, body, digest=digest)
        if written and not self._found.put_if_absent_atomic:
            return holds(self._store, key, body, digest=digest)
        return written

    def swap(self, key: str, body: bytes, *, expected: str | None) -> bool:
        if not self._found.swap:
            raise Refused("PH-0309 this store cannot compare-and-swap", where=f"{self.url} {key}", next=NO_SWAP)
        return self._store.swap(key, body, expected=expected)

    def copy(self, source: str, target: str) -> None:
        self._store.copy(source, target)

    def delete(self, key: str) -> None:
        self._store.delete(key)

    def list(self, prefix: str = "") -> Iterator[Stat]:
        return self._store.list(prefix)

    def _compare(self, key: str, body: bytes | Path, digest: str) -> None:
        """The comparison that the store does not make, before anything is sent: one more pass over a file."""
        if self._found.sha256_checked:
            return
        with opened(body) as source:
            for _ in verified(source.chunks(), digest=digest, size=source.size, where=key):
                pass


def holds(store: Store, key: str, body: bytes | Path, *, digest: str) -> bool:
    """Whether the object is there with the body's very bytes; all of it is read."""
    with opened(body) as source:
        size = source.size
    return holds_bytes(store, key, digest=digest, size=size)
