"""Digests and canonical JSON: how bytes and documents are named.

A digest is `sha256:` and 64 lower-case hex digits, as in OCI. Canonical JSON is UTF-8, keys sorted by code point,
no blanks, no NaN, one newline at the end, so that equal documents have equal digests.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from packhouse.errors import DigestMismatch

MiB = 1024 * 1024
CHUNK = MiB
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def digest_bytes(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def digest_file(path: Path) -> str:
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def digest_files(files: Mapping[str, Path]) -> str:
    """Over the names and the digests of the files, whatever their order."""
    return digest_bytes(canonical_json({name: digest_file(path) for name, path in files.items()}))


def short(digest: str) -> str:
    """The first 12 hex digits, for people."""
    return digest.removeprefix("sha256:")[:12]


def canonical_json(document: Any) -> bytes:
    """Law: json.loads(canonical_json(d)) == d, where every key is text and lists are lists. Raises ValueError on NaN
    and infinity, TypeError on other types."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode() + b"\n"


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """For json.loads: the object, where no key stands twice. Raises ValueError: one does."""
    document = dict(pairs)
    if len(document) != len(pairs):
        raise ValueError("a key stands there twice")
    return document


def chunks(file: BinaryIO, size: int = CHUNK) -> Iterator[bytes]:
    while chunk := file.read(size):
        yield chunk


def verified(stream: Iterable[bytes], *, digest: str, size: int, where: str) -> Iterator[bytes]:
    """Passes the chunks on, and raises at the end unless size and digest agree.

    Raises DigestMismatch: the bytes are not the named ones. A stream that is too long is cut off at once,
    so that no more than `size` bytes are ever taken.
    """
    seen, hasher = 0, hashlib.sha256()
    for chunk in stream:
        seen += len(chunk)
        if seen > size:
            raise DigestMismatch(
                "PH-0130 more bytes than named", where=where, got=f"over {size:,} bytes", want=f"{size:,}"
            )
        hasher.update(chunk)
        yield chunk
    if seen != size:
        raise DigestMismatch("PH-0128 size differs", where=where, got=f"{seen:,} bytes", want=f"{size:,}", next=_NEXT)
    if (got := f"sha256:{hasher.hexdigest()}") != digest:
        raise DigestMismatch("PH-0129 sha256 differs", where=where, got=short(got), want=short(digest), next=_NEXT)


_NEXT = "the file changed after its digest was written: stage it again"
