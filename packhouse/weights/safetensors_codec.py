"""Tensors in files: our own strict safetensors codec, without torch.

A file is 8 bytes (little-endian length of the header), the header (JSON, padded with blanks), the data. What
`read_header` accepts is a subset of what the safetensors crate accepts, so that no two readers see two files in one.

What `write` makes is canonical: equal tensors and metadata give equal bytes, in any process and on any machine.
The header lists names by code point; the data lies by descending item size, then by name, so that every tensor
is aligned to its own items and can be mapped without a copy.
"""

from __future__ import annotations

import json
import mmap
import os
import stat
import struct
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from packhouse.digest import CHUNK, MiB
from packhouse.errors import NotFound, UnsafeWeights, WeightsInvalid

Shape = tuple[int, ...]
Buffer = bytes | bytearray | memoryview
Array = npt.NDArray[Any]

# Bytes of one item. Dtypes of less than a byte (F4, F6) are left out: none of our models has them.
ITEM_BYTES = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2"), 1),
    **dict.fromkeys(("I16", "U16", "F16", "BF16"), 2),
    **dict.fromkeys(("I32", "U32", "F32"), 4),
    **dict.fromkeys(("I64", "U64", "F64", "C64"), 8),
}
NUMPY_DTYPES = {
    "BOOL": "?", "U8": "u1", "I8": "i1", "I16": "<i2", "U16": "<u2", "F16": "<f2", "I32": "<i4", "U32": "<u4",
    "F32": "<f4", "I64": "<i8", "U64": "<u8", "F64": "<f8", "C64": "<c8",
}  # fmt: skip
METADATA = "__metadata__"
LENGTH = struct.Struct("<Q")
ALIGNMENT = 8
_RESAVE = 'save it again with safetensors.torch.save_file(model.state_dict(), "weights.safetensors")'


@dataclass(frozen=True)
class TensorLimits:
    """What a header may cost before anything is believed of it. Bytes, but for counts."""

    max_header_bytes: int = 16 * MiB
    max_metadata_bytes: int = 1 * MiB
    max_name_bytes: int = 1024
    max_tensors: int = 100_000
    max_rank: int = 64


LIMITS = TensorLimits()


@dataclass(frozen=True)
class TensorInfo:
    """One tensor of a header. begin, end: bytes from the start of the data."""

    dtype: str
    shape: Shape
    begin: int
    end: int


@dataclass(frozen=True)
class Header:
    """What a file says it holds, after every check. data_start: bytes from the start of the file."""

    tensors: dict[str, TensorInfo]
    metadata: dict[str, str]
    data_start: int


class Raw(NamedTuple):
    """A tensor to be written: dtype as safetensors names it, little-endian items in row-major order.

    data may be a function, called once when its turn comes, so that one copy at a time is in memory.
    """

    dtype: str
    shape: Shape
    data: Buffer | Callable[[], Buffer]


@dataclass(frozen=True)
class Mapped:
    """A checked file, mapped copy-on-write: what a reader changes never reaches the file."""

    header: Header
    memory: mmap.mmap = field(repr=False)


# Reading


def read_header(path: Path, *, limits: TensorLimits = LIMITS) -> Header:
    """The checked header. Law: what this accepts, the safetensors crate accepts and reads alike.

    Raises UnsafeWeights: the file is not what it claims to be. NotFound: there is no such file.
    """
    with regular_file(path) as descriptor:
        return _header(descriptor, path.name, limits)


def open_mapped(path: Path, *, limits: TensorLimits = LIMITS) -> Mapped:
    """Header and bytes of one opening of the file: a swap between check and use changes nothing.

    The file must not be truncated while it is mapped. Raises as `read_header`.
    """
    with regular_file(path) as descriptor:
        header = _header(descriptor, path.name, limits)
        return Mapped(header, mmap.mmap(descriptor, 0, access=mmap.ACCESS_COPY))


def read_numpy(path: Path, *, limits: TensorLimits = LIMITS) -> dict[str, Array]:
    """Read-only arrays over the mapped file, in the order of their names.

    Raises WeightsInvalid where numpy has no such dtype (bfloat16, float8); else as `read_header`.
    """
    mapped = open_mapped(path, limits=limits)
    return {name: _array(mapped, name, path.name) for name in sorted(mapped.header.tensors)}


def _array(mapped: Mapped, name: str, where: str) -> Array:
    info = mapped.header.tensors[name]
    if info.dtype not in NUMPY_DTYPES:
        raise WeightsInvalid(
            "PH-0338 numpy has no such dtype", where=f"{where}: {name}", got=info.dtype, next="use read_torch"
        )
    count, start = (info.end - info.begin) // ITEM_BYTES[info.dtype], mapped.header.data_start + info.begin
    array = np.frombuffer(mapped.memory, NUMPY_DTYPES[info.dtype], count, start) if count else _nothing(info.dtype)
    array = array.reshape(info.shape)
    array.flags.writeable = False
    return array


def _nothing(dtype: str) -> Array:
    return np.empty(0, NUMPY_DTYPES[dtype])


@contextmanager
def regular_file(path: Path) -> Iterator[int]:
    """A descriptor of a regular file; never follows a link, never waits for a pipe."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise NotFound("PH-0336 no such file", where=path.name) from error
    except OSError as error:
        raise UnsafeWeights(
            "PH-0337 not a regular file", where=path.name, got=error.strerror or "", next=_RESAVE
        ) from error
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise UnsafeWeights(
                "PH-0337 not a regular file", where=path.name, got="a folder, pipe or device", next=_RESAVE
            )
        yield descriptor
    finally:
        os.close(descriptor)


def _header(descriptor: int, where: str, limits: TensorLimits) -> Header:
    size = os.fstat(descriptor).st_size
    check = _Checks(where, limits)
    length = check.length(os.pread(descriptor, LENGTH.size, 0), size)
    raw = os.pread(descriptor, length, LENGTH.size)
    if len(raw) != length:
        raise check.refused("the file shrank while it was read")
    entries = check.json(raw)
    metadata = check.metadata(entries.pop(METADATA, {}))
    data_start = LENGTH.size + length
    tensors = check.tensors(entries, size - data_start)
    return Header(tensors=tensors, metadata=metadata, data_start=data_start)


class _Checks:
    """The rules of a header, in the order in which they are asked. Each refuses with its own words."""

    def __init__(self, where: str, limits: TensorLimits) -> None:
        self.where, self.limits = where, limits

    def refused(self, what: str, *, at: str = "", got: object = "", want: object = "") -> UnsafeWeights:
        where = f"{self.where}: {_brief(at)}" if at else self.where
        return UnsafeWeights(what, where=where, got=_brief(str(got)), want=str(want), next=_RESAVE)

    def length(self, first: bytes, size: int) -> int:
        if len(first) < LENGTH.size:
            raise self.refused("too short for a header", got=f"{size} bytes", want="at least 10")
        (length,) = LENGTH.unpack(first)
        if length > self.limits.max_header_bytes:
            raise self.refused("header too large", got=f"{length:,} bytes", want=f"{self.limits.max_header_bytes:,}")
        if length < 2 or LENGTH.size + length > size:
            raise self.refused("header length does not fit the file", got=f"{length:,} of {size:,} bytes")
        return int(length)

    def json(self, raw: bytes) -> dict[str, Any]:
        if not raw.startswith(b"{"):
            raise self.refused("header does not start with {", got=raw[:8])
        # A cheap bound on what the parser may build: each tensor has one brace and two brackets.
        if raw.count(b"{") + raw.count(b"[") > 3 * self.limits.max_tensors + self.limits.max_metadata_bytes:
            raise self.refused("too many tensors", want=f"at most {self.limits.max_tensors:,}")
        try:
            document = json.loads(
                raw.decode(),
                object_pairs_hook=_unique,
                parse_int=_natural,
                parse_float=_no_number,
                parse_constant=_no_number,
            )
        except UnicodeDecodeError as error:
            raise self.refused("header is not UTF-8", got=error.reason) from error
        except RecursionError as error:
            raise self.refused("header is nested too deep") from error
        except ValueError as error:
            raise self.refused("header is not strict JSON", got=error) from error
        if not isinstance(document, dict):
            raise self.refused("header is not an object")
        return document

    def metadata(self, found: Any) -> dict[str, str]:
        if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
            raise self.refused("metadata is not a map of strings", at=METADATA)
        texts = [*found, *found.values()]
        if not all(_is_unicode(text) for text in texts):
            raise self.refused("metadata is not Unicode text", at=METADATA)
        if (size := sum(len(text.encode()) for text in texts)) > self.limits.max_metadata_bytes:
            want = f"at most {self.limits.max_metadata_bytes:,}"
            raise self.refused("metadata too large", at=METADATA, got=f"{size:,} bytes", want=want)
        return found

    def tensors(self, entries: dict[str, Any], data_bytes: int) -> dict[str, TensorInfo]:
        if len(entries) > self.limits.max_tensors:
            raise self.refused("too many tensors", got=f"{len(entries):,}", want=f"at most {self.limits.max_tensors:,}")
        self.names(entries)
        tensors = {name: self.tensor(name, entry) for name, entry in entries.items()}
        end = 0
        for name, info in sorted(tensors.items(), key=lambda item: (item[1].begin, item[1].end)):
            if info.begin != end:
                raise self.refused("offsets leave a hole or overlap", at=name, got=f"begin {info.begin}", want=str(end))
            end = info.end
        if end != data_bytes:
            raise self.refused("tensors do not end where the file ends", got=f"{end:,} bytes", want=f"{data_bytes:,}")
        return tensors

    def names(self, names: Mapping[str, object]) -> None:
        for name in names:
            if problem := name_problem(name, self.limits):
                raise self.refused(f"name of a tensor {problem}", at=name)
        if not all(name.isascii() for name in names):
            self._twins(names)

    def _twins(self, names: Mapping[str, object]) -> None:
        seen: dict[str, str] = {}
        for name in names:
            if seen.setdefault(unicodedata.normalize("NFC", name), name) != name:
                raise self.refused("two names of tensors look the same", at=name)

    def tensor(self, name: str, entry: Any) -> TensorInfo:
        if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
            raise self.refused("not an entry of dtype, shape, data_offsets", at=name, got=entry)
        dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
        if not isinstance(dtype, str) or dtype not in ITEM_BYTES:
            raise self.refused("unknown dtype", at=name, got=dtype, want=" ".join(ITEM_BYTES))
        if not _naturals(shape) or len(shape) > self.limits.max_rank:
            raise self.refused("not a shape", at=name, got=shape)
        if not _naturals(offsets) or len(offsets) != 2:
            raise self.refused("not a pair of offsets", at=name, got=offsets)
        self._size(name, dtype, tuple(shape), offsets[1] - offsets[0])
        return TensorInfo(dtype, tuple(shape), *offsets)

    def _size(self, name: str, dtype: str, shape: Shape, got: int) -> None:
        size = ITEM_BYTES[dtype]
        for dimension in shape:
            size *= max(dimension, 1)
            if size >= 2**63:
                raise self.refused("shape overflows 64 bits", at=name, got=list(shape))
        want = 0 if 0 in shape else size
        if got != want:
            raise self.refused("offsets do not fit dtype and shape", at=name, got=f"{got} bytes", want=str(want))


def name_problem(name: str, limits: TensorLimits = LIMITS) -> str:
    """Why a tensor may not have this name; empty where it may. Names reach logs, tables and file names."""
    if not name:
        return "is empty"
    if not _is_unicode(name) or not name.isprintable():
        return "has a control or formatting character"
    if len(name.encode()) > limits.max_name_bytes:
        return f"is longer than {limits.max_name_bytes} bytes"
    if "\\" in name or name.startswith("/") or ".." in name.split("/"):
        return "looks like a path"
    return "is reserved" if name == METADATA else ""


def _naturals(found: Any) -> bool:
    return isinstance(found, list) and all(type(item) is int for item in found)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice")
    return found


def _natural(text: str) -> int:
    if text.startswith("-") or len(text) > 19:
        raise ValueError(f"number out of range: {text[:24]}")
    return int(text)


def _no_number(text: str) -> float:
    raise ValueError(f"not an integer: {text[:24]}")


def _is_unicode(text: str) -> bool:
    """False for lone surrogates, which JSON can escape and UTF-8 can not hold."""
    return not any("\ud800" <= c <= "\udfff" for c in text) if not text.isascii() else True


def _brief(text: str) -> str:
    return text if len(text) <= 120 else f"{text[:117]}..."


# Writing


def write(path: Path, tensors: Mapping[str, Raw], metadata: Mapping[str, str] | None = None) -> None:
    """Writes the canonical file; an older file of that name is replaced, not overwritten: it may be mapped.

    Law: read_header accepts it; equal arguments give equal bytes. Memory: one tensor that is lazy at a time.
    Raises WeightsInvalid: a name, a dtype or a size that a header may not have. Does not fsync.
    """
    order = _order({name: _item_bytes(name, raw) for name, raw in tensors.items()})
    header = _render({name: tensors[name] for name in order}, metadata or {})
    path.unlink(missing_ok=True)
    with path.open("xb") as file:
        file.write(header)
        for name in order:
            for piece in _pieces(name, tensors[name]):
                file.write(piece)


def canonical_header(header: Header) -> bytes:
    """The first bytes, up to the data, that `write` would give a file of these tensors and this metadata."""
    order = _order({name: ITEM_BYTES[info.dtype] for name, info in header.tensors.items()})
    tensors = ((name, header.tensors[name]) for name in order)
    return _render({name: Raw(info.dtype, info.shape, b"") for name, info in tensors}, header.metadata)


def starts_with(path: Path, first: bytes) -> bool:
    with regular_file(path) as descriptor:
        return os.pread(descriptor, len(first), 0) == first


def _order(item_bytes: Mapping[str, int]) -> list[str]:
    return sorted(item_bytes, key=lambda name: (-item_bytes[name], name))


def _item_bytes(name: str, raw: Raw) -> int:
    if problem := name_problem(name):
        raise WeightsInvalid(f"PH-0335 name of a tensor {problem}", where=_brief(name))
    if raw.dtype not in ITEM_BYTES:
        raise WeightsInvalid(
            "PH-0333 no such dtype in safetensors", where=name, got=raw.dtype, want=" ".join(ITEM_BYTES)
        )
    return ITEM_BYTES[raw.dtype]


def _render(tensors: Mapping[str, Raw], metadata: Mapping[str, str]) -> bytes:
    entries: dict[str, Any] = {METADATA: dict(metadata)} if metadata else {}
    begin = 0
    for name, raw in tensors.items():
        end = begin + _size_bytes(raw)
        entries[name] = {"dtype": raw.dtype, "shape": list(raw.shape), "data_offsets": [begin, end]}
        begin = end
    text = json.dumps(entries, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    return LENGTH.pack(len(text)) + text


def _size_bytes(raw: Raw) -> int:
    size = ITEM_BYTES[raw.dtype]
    for dimension in raw.shape:
        size *= dimension
    return size


def _pieces(name: str, raw: Raw) -> Iterator[memoryview]:
    """The data in chunks: one huge write of a mapped file would pull it into memory as a whole."""
    data = memoryview(raw.data() if callable(raw.data) else raw.data)
    view = data.cast("B") if data.nbytes else memoryview(b"")
    if view.nbytes != _size_bytes(raw):
        got, want = f"{view.nbytes} bytes", str(_size_bytes(raw))
        raise WeightsInvalid("PH-0334 data does not fit dtype and shape", where=name, got=got, want=want)
    for start in range(0, view.nbytes, CHUNK):
        yield view[start : start + CHUNK]


def write_numpy(path: Path, arrays: Mapping[str, Array], metadata: Mapping[str, str] | None = None) -> None:
    """Writes numpy arrays of any layout and byte order. Raises WeightsInvalid: the dtype is not a number's."""
    write(path, {name: _raw(name, array) for name, array in arrays.items()}, metadata)


def _raw(name: str, array: Array) -> Raw:
    wanted = array.dtype.newbyteorder("<")
    for dtype, code in NUMPY_DTYPES.items():
        if np.dtype(code) == wanted:
            return Raw(dtype, array.shape, lambda: _bytes(array, wanted))
    raise WeightsInvalid("PH-0333 no such dtype in safetensors", where=name, got=str(array.dtype))


def _bytes(array: Array, dtype: np.dtype[Any]) -> Buffer:
    return np.ascontiguousarray(array, dtype).reshape(-1).view(np.uint8).data
