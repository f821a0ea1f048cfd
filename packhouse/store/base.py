"""What a store is: objects under plain names, with the three conditional writes that a release stands on."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from packhouse.errors import DigestMismatch, NotFound

MAX_KEY_BYTES = 800
MAX_PART_BYTES = 200
RESERVED = frozenset({".tmp", ".locks"})
"""First parts that no key may have: a file store keeps its own things there."""

_KEY = re.compile(r"[A-Za-z0-9._@=+-]+(/[A-Za-z0-9._@=+-]+)*")
_PREFIX = re.compile(r"([A-Za-z0-9._@=+-]+/)*[A-Za-z0-9._@=+-]*")


@dataclass(frozen=True)
class Stat:
    """An object's size in bytes and its version: an opaque token for `swap` that changes whenever the bytes do.
    modified: seconds since 1970 on the store's own clock; it orders writes, and proves nothing."""

    key: str
    size: int
    version: str
    modified: float = field(default=0.0, compare=False)


@dataclass(frozen=True)
class Capabilities:
    """What the probe found that a store keeps of its promises. False: refused or routed around, never assumed."""

    put_if_absent: bool
    put_if_absent_atomic: bool  # one winner under a sampled race
    swap: bool
    sha256_checked: bool  # the store itself refuses a body that differs from its declared sha256


class Store(Protocol):
    """One place for objects. Keys are `/`-separated names of [A-Za-z0-9._@=+-], no empty, `.` or `..` part, at most
    200 bytes a part and 800 in all, and not below `.tmp` or `.locks`. Things with other names are never seen.

    All methods raise StoreUnavailable where the store does not answer (StoreRefusal, a kind of it, where it refuses
    us), StoreFull where it has no space left, and ValueError on a key that is not one. A write is whole or not there,
    whatever was killed when.
    """

    @property
    def url(self) -> str:
        """Where this is, to print and to open again. Never holds a secret."""
        ...

    def stat(self, key: str) -> Stat | None:
        """None where there is no such object."""
        ...

    def read(self, key: str, *, digest: str, size: int) -> Iterator[bytes]:
        """Streams the object; raises DigestMismatch at the end, or as soon as it is too long, unless it is the
        named bytes. NotFound, at the call: no such object."""
        ...

    def get(self, key: str, *, limit: int) -> tuple[bytes, str]:
        """A small document's bytes and version, for pointers and records, whose digest nobody can know before.
        NotFound: no such object. LimitExceeded: it is larger than `limit` bytes (checked before it is taken)."""
        ...

    def put(self, key: str, body: bytes | Path, *, digest: str) -> None:
        """Writes, replacing what was there. `digest` is that of the body and is checked on the way.
        DigestMismatch: the body is not what `digest` says; nothing was written."""
        ...

    def put_if_absent(self, key: str, body: bytes | Path, *, digest: str) -> bool:
        """True: the object is there with these bytes, by this call. False: there is an object, left as it was (it may
        be equal). Where an answer was lost and the call was tried again, an equal object counts as ours."""
        ...

    def swap(self, key: str, body: bytes, *, expected: str | None) -> bool:
        """Compare-and-swap of a small document: writes if the version is still `expected` (None: if absent).
        True: written by this call. False: somebody else was first. Contention: the store kept saying "busy".
        Where an answer was lost and the call was tried again, an equal object counts as ours: let two writers'
        documents differ (a name, a time) where it matters who was first."""
        ...

    def copy(self, source: str, target: str) -> None:
        """Copies inside the store, replacing the target, without the bytes passing through here where the store can.
        NotFound: no such source."""
        ...

    def delete(self, key: str) -> None:
        """Deletes; an absent object is no error."""
        ...

    def list(self, prefix: str = "") -> Iterator[Stat]:
        """All objects whose key begins with `prefix`, in code point order of the keys."""
        ...


class Adapter(Store, Protocol):
    """A store itself, not a wrapper of one. The probe asks it a question that no caller should."""

    def put_declared(self, key: str, body: bytes, *, digest: str) -> None:
        """Writes with a declared digest that nobody here compares with the body.
        DigestMismatch: the store itself compared them."""
        ...


def checked_key(key: str) -> str:
    """The key. Raises ValueError where it is not one."""
    parts = key.split("/")
    if (
        not _KEY.fullmatch(key)
        or len(key) > MAX_KEY_BYTES
        or parts[0] in RESERVED
        or any(part in {".", ".."} or len(part) > MAX_PART_BYTES for part in parts)
    ):
        raise ValueError(f"not a key: {key[:MAX_PART_BYTES]!r}")
    return key


def checked_prefix(prefix: str) -> str:
    """The prefix of some key, or nothing. Raises ValueError where no key can begin so."""
    *folders, _ = prefix.split("/")
    if folders:
        checked_key("/".join(folders))
    if not _PREFIX.fullmatch(prefix) or len(prefix) > MAX_KEY_BYTES:
        raise ValueError(f"not the beginning of a key: {prefix[:MAX_PART_BYTES]!r}")
    return prefix


def is_key(name: str) -> bool:
    try:
        checked_key(name)
    except ValueError:
        return False
    return True


def holds_bytes(store: Store, key: str, *, digest: str, size: int) -> bool:
    """Whether the object is there with these very bytes; all of it is read."""
    try:
        for _ in store.read(key, digest=digest, size=size):
            pass
    except (DigestMismatch, NotFound):
        return False
    return True
