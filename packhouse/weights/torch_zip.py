"""A strict look at the zip archive that torch.save writes, before anything else reads it.

One archive must have one meaning: two readers that disagree on where an entry is are how a scanner is fooled.
So only what torch.save writes is taken (stored entries, nothing before, between or behind them, local and central
headers that agree, right checksums), and everything else is refused by name. Never unpickles.
"""

from __future__ import annotations

import mmap
import os
import re
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from packhouse.digest import CHUNK, MiB
from packhouse.errors import UnsafeWeights
from packhouse.weights.safetensors_codec import regular_file

END = struct.Struct("<4s4H2LH")
END64 = struct.Struct("<4sQ2H2L4Q")
LOCATOR = struct.Struct("<4sLQL")
CENTRAL = struct.Struct("<4s6H3L5H2L")
LOCAL = struct.Struct("<4s5H3L2H")
DESCRIPTORS = (struct.Struct("<4sLLL"), struct.Struct("<4sLQQ"))
DESCRIBED, UTF8 = 0x0008, 0x0800
FULL16, FULL32 = 0xFFFF, 0xFFFFFFFF
ZIP64, PADDING = 0x0001, 0x4246
REGULAR_FILE = 0o100000
_NEXT = 'torch.save(model.state_dict(), "weights.pt") again, or better safetensors.torch.save_file'


@dataclass(frozen=True)
class ArchiveLimits:
    """Bounds before allocation: bytes, but for max_entries."""

    max_entries: int = 200_000
    max_directory_bytes: int = 32 * MiB
    max_pickle_bytes: int = 24 * MiB
    max_record_bytes: int = 64  # of the small text records


LIMITS = ArchiveLimits()


@dataclass(frozen=True)
class Archive:
    """What the archive holds. pickle: the bytes of data.pkl. storages: key -> size in bytes of data/<key>."""

    pickle: bytes
    storages: dict[str, int]


class Entry(NamedTuple):
    """One entry, as the central directory has it. offset: of its local header; size: bytes, stored."""

    name: str
    raw_name: bytes
    flags: int
    crc: int
    size: int
    offset: int


def read_archive(path: Path, *, limits: ArchiveLimits = LIMITS) -> Archive:
    """The archive's pickle and storage sizes, after every check; reads each byte once for its checksum.

    Raises UnsafeWeights: the archive is not, byte for byte, what torch.save would write.
    """
    with regular_file(path) as descriptor:
        if not os.fstat(descriptor).st_size:
            raise UnsafeWeights("PH-0107 the file is empty", where=path.name, next=_NEXT)
        data = mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)
    with data:
        check = _Checks(data, path.name, limits)
        start, end, count = check.directory()
        entries = check.entries(start, end, count)
        bodies = check.bodies(entries, start)
        return _records(check, entries, bodies)


class _Checks:
    def __init__(self, data: mmap.mmap, where: str, limits: ArchiveLimits) -> None:
        self.data, self.where, self.limits = data, where, limits

    def refused(self, what: str, *, at: str = "", got: object = "", want: object = "") -> UnsafeWeights:
        where = f"{self.where}: {at[:120]}" if at else self.where
        return UnsafeWeights(what, where=where, got=str(got)[:120], want=str(want), next=_NEXT)

    def directory(self) -> tuple[int, int, int]:
        """(start, end, entries) of the central directory, which must end where the end records begin."""
        at = len(self.data) - END.size
        if at < 0 or self.data[at : at + 4] != b"PK\x05\x06":
            raise self.refused("zip archive does not end in an end record", got="cut off, or bytes behind the archive")
        _, disk, first_disk, here, count, size, start, comment = END.unpack_from(self.data, at)
        if comment or disk or first_disk or here != count:
            raise self.refused("zip end record has a comment, several disks or two counts")
        end = at
        if at >= LOCATOR.size and self.data[at - LOCATOR.size : at - LOCATOR.size + 4] == b"PK\x06\x07":
            end, count, size, start = self._zip64(at - LOCATOR.size, (count, size, start))
        if start + size != end:
            raise self.refused("zip directory does not end where its end record begins", got=start + size, want=end)
        if count > self.limits.max_entries or size > self.limits.max_directory_bytes:
            raise self.refused("too many zip entries", got=f"{count:,}", want=f"at most {self.limits.max_entries:,}")
        return start, end, count

    def _zip64(self, at: int, short: tuple[int, int, int]) -> tuple[int, int, int, int]:
        _, disk, end, disks = LOCATOR.unpack_from(self.data, at)
        if disk or disks != 1 or end + END64.size != at or self.data[end : end + 4] != b"PK\x06\x06":
            raise self.refused("zip64 end record is not where its locator says")
        _, length, _, _, disk, first_disk, here, count, size, start = END64.unpack_from(self.data, end)
        if length != END64.size - 12 or disk or first_disk or here != count:
            raise self.refused("zip64 end record has an extension, several disks or two counts")
        for brief, full, unknown in zip(short, (count, size, start), (FULL16, FULL32, FULL32), strict=True):
            if brief not in (full, unknown):
                raise self.refused("zip and zip64 end records differ", got=brief, want=full)
        return end, count, size, start

    def entries(self, at: int, end: int, count: int) -> list[Entry]:
        found = []
        for _ in range(count):
            entry, at = self._entry(at, end)
            found.append(entry)
        if at != end:
            raise self.refused("zip directory holds more than its entries")
        names = {entry.name.casefold() for entry in found}
        if len(names) != len(found):
            raise self.refused("two zip entries have one name")
        return found

    def _entry(self, at: int, end: int) -> tuple[Entry, int]:
        if at + CENTRAL.size > end or self.data[at : at + 4] != b"PK\x01\x02":
            raise self.refused("zip directory is cut off or has fewer entries than it says")
        fields = CENTRAL.unpack_from(self.data, at)
        flags, method, crc, stored, size, name_size, extra_size, comment_size = fields[3], fields[4], *fields[7:13]
        disk, attributes, offset = fields[13], fields[15], fields[16]
        body = at + CENTRAL.size
        raw_name, extra = (
            self.data[body : body + name_size],
            self.data[body + name_size : body + name_size + extra_size],
        )
        name = self._name(raw_name)
        if flags & ~(DESCRIBED | UTF8):
            raise self.refused("zip entry has flags that torch.save never sets", at=name, got=f"{flags:#06x}")
        if method:
            raise self.refused("zip entry is compressed", at=name, got=f"method {method}", want="stored")
        size, stored, offset = self._long_fields(name, extra, [size, stored, offset])
        if stored != size or comment_size or disk or (attributes >> 16) & 0o170000 not in (0, REGULAR_FILE):
            raise self.refused("zip entry has two sizes, a comment, a disk or is no regular file", at=name)
        following = body + name_size + extra_size
        if following > end:
            raise self.refused("zip directory is cut off or has fewer entries than it says")
        return Entry(name, raw_name, flags, crc, size, offset), following

    def _name(self, raw: bytes) -> str:
        try:
            name = raw.decode("ascii" if b"\0" in raw else "utf-8")
        except UnicodeDecodeError as error:
            raise self.refused("name of a zip entry is not UTF-8", got=raw[:60]) from error
        parts = name.split("/")
        if not name.isprintable() or "\\" in name or len(parts) < 2 or any(part in ("", ".", "..") for part in parts):
            raise self.refused("name of a zip entry is not a plain relative path in one folder", got=ascii(name))
        return name

    def _long_fields(self, name: str, extra: bytes, fields: list[int]) -> list[int]:
        """The 64-bit values of those of the fields that say 'see the extra field', in the order of the format."""
        unknown = [index for index, value in enumerate(fields) if value == FULL32]
        chain = self._extras(name, extra)
        value = chain.pop(ZIP64, b"")
        if len(value) != 8 * len(unknown) or chain.keys() - {PADDING}:
            raise self.refused("zip entry has extra fields that torch.save never writes", at=name)
        for index, long in zip(unknown, struct.unpack(f"<{len(unknown)}Q", value), strict=True):
            fields[index] = long
        return fields

    def _extras(self, name: str, extra: bytes) -> dict[int, bytes]:
        found: dict[int, bytes] = {}
        at = 0
        while at < len(extra):
            kind, size = struct.unpack_from("<2H", extra.ljust(at + 4, b"\0"), at)
            if kind in found or at + 4 + size > len(extra):
                raise self.refused("extra fields of a zip entry are malformed", at=name)
            found[kind] = extra[at + 4 : at + 4 + size]
            at += 4 + size
        return found

    def bodies(self, entries: list[Entry], end: int) -> dict[str, int]:
        """Where each entry's data starts. Law: headers, data and descriptors tile the file from 0 to `end`."""
        starts, at = {}, 0
        for entry in sorted(entries, key=lambda entry: entry.offset):
            if entry.offset != at:
                raise self.refused(
                    "bytes before, between or shared by zip entries", at=entry.name, got=entry.offset, want=at
                )
            starts[entry.name] = self._local(entry, end)
            at = self._described(entry, starts[entry.name] + entry.size, end)
        if at != end:
            raise self.refused("bytes between the last zip entry and the directory", got=at, want=end)
        return starts

    def _local(self, entry: Entry, end: int) -> int:
        at = entry.offset
        if at + LOCAL.size > end or self.data[at : at + 4] != b"PK\x03\x04":
            raise self.refused("zip entry has no local header", at=entry.name)
        _, _, flags, method, _, _, crc, stored, size, name_size, extra_size = LOCAL.unpack_from(self.data, at)
        body = at + LOCAL.size
        name, extra = self.data[body : body + name_size], self.data[body + name_size : body + name_size + extra_size]
        if name != entry.raw_name or flags != entry.flags or method:
            raise self.refused("local and central header of a zip entry differ", at=entry.name, got=ascii(name))
        size, stored = self._long_fields(entry.name, extra, [size, stored])
        promised = bool(flags & DESCRIBED) and (crc, stored, size) == (0, 0, 0)
        if not promised and (crc, stored, size) != (entry.crc, entry.size, entry.size):
            raise self.refused("local and central header of a zip entry differ", at=entry.name, got=f"{size} bytes")
        start = int(body + name_size + extra_size)
        if start + entry.size > end:
            raise self.refused("zip entry reaches past the directory", at=entry.name)
        self._checksum(entry, start)
        return start

    def _checksum(self, entry: Entry, start: int) -> None:
        crc = 0
        with memoryview(self.data) as view:
            for at in range(start, start + entry.size, CHUNK):
                crc = zlib.crc32(view[at : min(at + CHUNK, start + entry.size)], crc)
        if crc != entry.crc:
            raise self.refused(
                "checksum of a zip entry differs", at=entry.name, got=f"{crc:08x}", want=f"{entry.crc:08x}"
            )

    def _described(self, entry: Entry, at: int, end: int) -> int:
        """Where the entry ends: behind its data descriptor, which torch.save leaves out of empty entries."""
        if not entry.flags & DESCRIBED or (not entry.size and self.data[at : at + 4] != b"PK\x07\x08"):
            return at
        for form in DESCRIPTORS:
            if at + form.size <= end:
                signature, crc, stored, size = form.unpack_from(self.data, at)
                if (signature, crc, stored, size) == (b"PK\x07\x08", entry.crc, entry.size, entry.size):
                    return int(at + form.size)
        raise self.refused("data descriptor of a zip entry does not fit it", at=entry.name)


# What the entries mean

STORAGE = re.compile(r"data/(0|[1-9][0-9]{0,9})", re.ASCII)
TEXTS = {
    "version": re.compile(rb"([1-9]|10)\n?"),
    "byteorder": re.compile(rb"little"),
    ".format_version": re.compile(rb"[1-9][0-9]?"),
    ".storage_alignment": re.compile(rb"[1-9][0-9]{0,4}"),
    ".data/serialization_id": re.compile(rb"[0-9]{1,64}"),
}


def _records(check: _Checks, entries: list[Entry], bodies: dict[str, int]) -> Archive:
    storages: dict[str, int] = {}
    pickle = b""
    for entry in entries:
        record = _record_name(check, entry, entries[0])
        start = bodies[entry.name]
        if match := STORAGE.fullmatch(record):
            storages[match[1]] = entry.size
        elif record == "data.pkl":
            if entry.size > check.limits.max_pickle_bytes:
                got, want = f"{entry.size:,} bytes", f"at most {check.limits.max_pickle_bytes:,}"
                raise check.refused("data.pkl is too large", got=got, want=want)
            pickle = check.data[start : start + entry.size]
        else:
            _check_text(
                check, entry, record, check.data[start : start + min(entry.size, check.limits.max_record_bytes)]
            )
    if not pickle:
        raise check.refused("zip archive has no data.pkl")
    return Archive(pickle=pickle, storages=storages)


def _record_name(check: _Checks, entry: Entry, first: Entry) -> str:
    """The name below the archive's one top folder."""
    folder, record = entry.name.split("/", 1)
    if folder != (top := first.name.split("/")[0]):
        raise check.refused("zip archive has two top folders", at=entry.name, got=f"{top}, {folder}")
    return record


def _check_text(check: _Checks, entry: Entry, record: str, text: bytes) -> None:
    if record not in TEXTS:
        raise check.refused("zip entry does not belong to saved weights", at=entry.name)
    if len(text) != entry.size or not TEXTS[record].fullmatch(text):
        raise check.refused("record of the archive has a strange value", at=entry.name, got=ascii(text[:32]))
