"""One blob on its way to a registry: an upload that goes on where it broke off.

Source: https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md#pushing-blobs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Protocol
from urllib.parse import urlsplit

import requests

from infra.registry.responses import expect, said, same_digest
from packhouse.digest import MiB, short
from packhouse.errors import RegistryUnavailable, Unavailable

Body = Callable[[], Iterator[bytes]]
SMALL = MiB
"""Bytes of a blob that goes in one request with the end of its upload; larger ones can go on where they broke off."""
CLOSING_S = 900.0
"""For the answer to an upload's end: a registry may move gigabytes to where they stay before it gives one."""
LOST = (400, 404, 408, 416)
"""Answers to a part of an upload after which it begins anew: the session is gone, or counts otherwise."""


class Requests(Protocol):
    """What an upload needs of a registry's client."""

    host: str

    def has_blob(self, repository: str, digest: str) -> bool:
        """Whether the registry has the blob."""

    def ask(
        self,
        method: str,
        path: str,
        *repositories: str,
        headers: Mapping[str, str] | None = None,
        body: Body | None = None,
        size: int = 0,
        answer_s: float = ...,
    ) -> requests.Response:
        """One request. Raises RegistryUnavailable, RegistryRefusal."""

    def place(self, answer: requests.Response) -> str:
        """Where the upload goes on, by the registry's answer."""


class Upload:
    """One blob on its way: a session at the registry, and how far it got."""

    def __init__(self, client: Requests, repository: str, digest: str, size: int, body: Body) -> None:
        self._client, self._repository = client, repository
        self._digest, self._size, self._body = digest, size, body
        self._place = ""
        self._begun = False
        self.reached = 0

    def got_further_than(self, reached: int) -> bool:
        """Whether the registry has more of it than before: then it is worth another round of tries."""
        with suppress(Unavailable):
            self.reached = self._resumed() if self._place else 0
        return self.reached > reached

    def go_on(self) -> None:
        """From where the registry is. Called again after a RegistryUnavailable."""
        done = self._resumed() if self._place else 0
        if self._begun and not self._place and self._client.has_blob(self._repository, self._digest):
            return  # it was carried out, and only the answer was lost
        self._begun = True
        where = f"{self._client.host}/{self._repository}@{short(self._digest)}"
        if not self._place:
            answer = self._client.ask("POST", f"{self._repository}/blobs/uploads/", self._repository)
            expect(answer, 202, where)
            self._place = self._client.place(answer)
        small = self._body if self._size <= SMALL else _nothing
        if done < self._size and small is _nothing:
            answer = self._client.ask(
                "PATCH",
                self._place,
                self._repository,
                headers={"Content-Type": "application/octet-stream", **self._range(done)},
                body=lambda: _from(self._body(), done),
                size=self._size - done,
            )
            self._accept(answer, 202, where)
            self._place = self._client.place(answer)
        last = f"{self._place}{'&' if urlsplit(self._place).query else '?'}digest={self._digest}"
        size = 0 if small is _nothing else self._size
        answer = self._client.ask("PUT", last, self._repository, body=small, size=size, answer_s=CLOSING_S)
        self._accept(answer, 201, where)
        same_digest(answer, self._digest, where)

    def _range(self, done: int) -> dict[str, str]:
        """Only where it is a part: some registries take no chunks, and all take a whole."""
        return {"Content-Range": f"{done}-{self._size - 1}"} if done else {}

    def _resumed(self) -> int:
        """How many bytes the registry has; it forgot the session: none, and a new one."""
        answer = self._client.ask("GET", self._place, self._repository)
        held = re.fullmatch(r"(?:bytes=)?0-(\d+)", answer.headers.get("Range", ""))
        if answer.status_code != 204 or not held:
            self._place = ""
            return 0
        self._place = self._client.place(answer)
        last = int(held[1])
        return 0 if last == 0 else min(last + 1, self._size)

    def _accept(self, answer: requests.Response, want: int, where: str) -> None:
        if answer.status_code in LOST:
            self._place = ""
            raise RegistryUnavailable("PH-0451 lost the upload", where=where, got=said(answer))
        expect(answer, want, where)


def _nothing() -> Iterator[bytes]:
    return iter(())


def _from(stream: Iterator[bytes], skip: int) -> Iterator[bytes]:
    for chunk in stream:
        if skip >= len(chunk):
            skip -= len(chunk)
            continue
        yield chunk[skip:] if skip else chunk
        skip = 0
