"""A store that is asked again where it did not answer: with growing pauses, a bounded number of times."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import chain, count
from pathlib import Path
from typing import TypeVar

from packhouse.digest import digest_bytes
from packhouse.errors import StoreRefusal, StoreUnavailable, Unavailable
from packhouse.store.base import Stat, Store
from packhouse.store.guarded import holds

T = TypeVar("T")


@dataclass(frozen=True)
class Patience:
    """How often and how long. A pause is drawn between 0 and `first_pause_s`, doubled at each try, at most
    `longest_pause_s`. No new try begins later than `total_s` after the first one began."""

    attempts: int = 5
    total_s: float = 120
    first_pause_s: float = 0.5
    longest_pause_s: float = 20
    sleep: Callable[[float], None] = field(default=time.sleep, repr=False)
    clock: Callable[[], float] = field(default=time.monotonic, repr=False)

    def again(
        self,
        act: Callable[[], T],
        *,
        after: type[Unavailable],
        never: type[Unavailable] | tuple[type[Unavailable], ...],
        asked: Callable[[Unavailable], float] = lambda _: 0.0,
    ) -> T:
        """Tries until `act` does not raise `after` any more, or raises `never`, which only a person can help, or the
        tries or the time are used up. asked: seconds that whoever failed wants us to wait besides."""
        deadline = self.clock() + self.total_s
        for tried in count(1):
            try:
                return act()
            except never:
                raise
            except after as error:
                pause = asked(error) + self.pause(tried)  # with what chance adds, or all come back at once
                if tried >= self.attempts or self.clock() + pause > deadline:
                    raise
                self.sleep(pause)
        raise AssertionError("count has no end")

    def pause(self, tried: int) -> float:
        """Seconds to wait after `tried` tries."""
        longest = min(self.first_pause_s * 2 ** (tried - 1), self.longest_pause_s)
        return random.uniform(0, longest)  # noqa: S311


class Retrying:
    """Asks again after StoreUnavailable, but not where the store refuses us (StoreRefusal), is full, or has found
    something wrong. Law: what a caller sees is what one try without a fault would have shown."""

    def __init__(self, store: Store, patience: Patience | None = None) -> None:
        self._store, self._patience = store, patience or Patience()

    @property
    def url(self) -> str:
        return self._store.url

    def stat(self, key: str) -> Stat | None:
        return self._again(lambda: self._store.stat(key))

    def read(self, key: str, *, digest: str, size: int) -> Iterator[bytes]:
        """Asked again only until the first bytes are out. A stream that breaks later raises: who has taken a part
        must throw it away and read again."""
        return self._again(lambda: _started(self._store.read(key, digest=digest, size=size)))

    def get(self, key: str, *, limit: int) -> tuple[bytes, str]:
        return self._again(lambda: self._store.get(key, limit=limit))

    def put(self, key: str, body: bytes | Path, *, digest: str) -> None:
        self._again(lambda: self._store.put(key, body, digest=digest))

    def put_if_absent(self, key: str, body: bytes | Path, *, digest: str) -> bool:
        return self._conditionally(
            lambda: self._store.put_if_absent(key, body, digest=digest),
            is_ours=lambda: holds(self._store, key, body, digest=digest),
        )

    def swap(self, key: str, body: bytes, *, expected: str | None) -> bool:
        return self._conditionally(
            lambda: self._store.swap(key, body, expected=expected),
            is_ours=lambda: holds(self._store, key, body, digest=digest_bytes(body)),
        )

    def copy(self, source: str, target: str) -> None:
        self._again(lambda: self._store.copy(source, target))

    def delete(self, key: str) -> None:
        self._again(lambda: self._store.delete(key))

    def list(self, prefix: str = "") -> Iterator[Stat]:
        """Asked again only until the first object is out."""
        return self._again(lambda: _started(self._store.list(prefix)))

    def _again(self, act: Callable[[], T]) -> T:
        return self._patience.again(act, after=StoreUnavailable, never=StoreRefusal)

    def _conditionally(self, write: Callable[[], bool], *, is_ours: Callable[[], bool]) -> bool:
        """A try without an answer may have been carried out. Then a later one says "somebody was first": it was us."""
        tried = 0

        def attempt() -> bool:
            nonlocal tried
            tried += 1
            return write() or (tried > 1 and is_ours())

        return self._again(attempt)


def _started(stream: Iterator[T]) -> Iterator[T]:
    """The same stream after its first element has been fetched."""
    for first in stream:
        return chain([first], stream)
    return iter(())
