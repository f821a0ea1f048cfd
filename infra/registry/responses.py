"""What a registry answers: read under a cap, and believed only where it is what was asked for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

import requests

from packhouse.digest import MiB, short
from packhouse.errors import DigestMismatch, ImageInvalid, RegistryUnavailable, squeezed


def received(answer: requests.Response, where: str) -> Iterator[bytes]:
    try:
        yield from answer.iter_content(MiB)
    except requests.RequestException as error:
        raise RegistryUnavailable("PH-0414 broke off", where=where, got=type(error).__name__) from error
    finally:
        answer.close()


def limited(answer: requests.Response, limit: int, where: str) -> bytes:
    expect(answer, 200, where)
    data = bytearray()
    for chunk in received(answer, where):
        data += chunk
        if len(data) > limit:
            raise ImageInvalid("PH-0413 is too large for a manifest", where=where, want=f"at most {limit:,} bytes")
    return bytes(data)


def expect(answer: requests.Response, status: int, where: str) -> None:
    if answer.status_code != status:
        raise ImageInvalid("PH-0412 the registry does not take it", where=where, got=said(answer))


def same_digest(answer: requests.Response, digest: str, where: str) -> None:
    told = answer.headers.get("Docker-Content-Digest", digest)
    if told != digest:
        raise DigestMismatch(
            "PH-0411 the registry stored something else", where=where, got=short(told), want=short(digest)
        )


def said(answer: requests.Response) -> str:
    """The status and the registry's own first error; never a header, which may hold a token."""
    words = ""
    with suppress(ValueError, LookupError, TypeError, AttributeError, requests.RequestException):
        first = answer.json()["errors"][0]
        words = f" {first.get('code', '')} {first.get('message', '')}"
    return squeezed(f"{answer.status_code}{words}", 200)
