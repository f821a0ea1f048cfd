"""One layer whose bytes depend on the files alone: a tar in gzip of stored blocks, made while it is sent.

Stored, because weights hardly compress and then no compressor's version decides the bytes; every client since 2013
reads gzip. Nothing is written to disk: the bytes are made once to be hashed and again for each try to send them.
Sources: POSIX.1-2001 (ustar), RFC 1951 3.2.4 (stored blocks), RFC 1952 (gzip).
"""

from __future__ import annotations

import hashlib
import struct
import tarfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from packhouse.digest import MiB, chunks

LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar+gzip"
OWNER = 10001
"""User and group of the files: those that the image runs as."""

STORED = 65535
"""Bytes of a stored block, at most."""

_GZIP_HEAD = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"  # no flags, no time, no name, system unknown


@dataclass(frozen=True)
class Layer:
    """digest, size: of the compressed bytes; diff_id: of the tar. `stream` makes the bytes anew."""

    files: Mapping[str, Path]
    modified: int
    digest: str
    diff_id: str
    size: int
    media_type: str = LAYER_TYPE

    def stream(self) -> Iterator[bytes]:
        return stored_gzip(tar(self.files, modified=self.modified))


def layer(files: Mapping[str, Path], *, modified: int) -> Layer:
    """files: path in the image, relative to its root -> a plain file here. modified: seconds since 1970 that every
    entry carries. Raises ValueError: a name that is no plain relative path."""
    plain, packed, size = hashlib.sha256(), hashlib.sha256(), 0
    for chunk in stored_gzip(_passing(tar(files, modified=modified), plain)):
        packed.update(chunk)
        size += len(chunk)
    return Layer(
        files=dict(files),
        modified=modified,
        digest=f"sha256:{packed.hexdigest()}",
        diff_id=f"sha256:{plain.hexdigest()}",
        size=size,
    )


def _passing(stream: Iterable[bytes], hasher: hashlib._Hash) -> Iterator[bytes]:
    for chunk in stream:
        hasher.update(chunk)
        yield chunk


def tar(files: Mapping[str, Path], *, modified: int) -> Iterator[bytes]:
    """Folders before what is in them, names in the order of their bytes; nobody's name, one owner, one time."""
    folders = {parent for name in files for parent in map(str, PurePosixPath(_plain(name)).parents) if parent != "."}
    for name in sorted([*folders, *files], key=str.encode):
        entry = tarfile.TarInfo(name)
        entry.uid = entry.gid = OWNER
        entry.mtime = modified
        if name in folders:
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            yield _head(entry)
            continue
        entry.mode = 0o444
        with files[name].open("rb") as file:
            entry.size = files[name].stat().st_size
            yield _head(entry)
            seen = 0
            for chunk in chunks(file):
                seen += len(chunk)
                yield chunk
        if seen != entry.size:
            raise ValueError(f"{name} changed while it was read")
        yield bytes(-entry.size % tarfile.BLOCKSIZE)
    yield bytes(2 * tarfile.BLOCKSIZE)


def _head(entry: tarfile.TarInfo) -> bytes:
    """USTAR where it fits; PAX for a name or a size that does not, as POSIX says."""
    return entry.tobuf(format=tarfile.PAX_FORMAT, encoding="utf-8", errors="strict")


def _plain(name: str) -> str:
    parts = name.split("/")
    if not name.isprintable() or any(part in ("", ".", "..") for part in parts):
        raise ValueError(f"{name!r} is no plain relative path")
    return name


def stored_gzip(stream: Iterable[bytes]) -> Iterator[bytes]:
    """The stream as gzip that stores and does not compress: 5 bytes more for each 65,535."""
    crc, size, held = 0, 0, bytearray()
    yield _GZIP_HEAD
    for chunk in stream:
        crc, size = zlib.crc32(chunk, crc), size + len(chunk)
        held += chunk
        if len(held) >= MiB:
            whole = len(held) - len(held) % STORED
            yield _blocks(memoryview(held)[:whole])
            held = held[whole:]
    whole = len(held) - len(held) % STORED
    yield _blocks(memoryview(held)[:whole])
    rest = held[whole:]
    yield b"\x01" + struct.pack("<HH", len(rest), len(rest) ^ 0xFFFF) + bytes(rest)
    yield struct.pack("<II", crc, size & 0xFFFFFFFF)


def _blocks(data: memoryview) -> bytes:
    head = b"\0" + struct.pack("<HH", STORED, 0)
    return b"".join(part for at in range(0, len(data), STORED) for part in (head, data[at : at + STORED]))
