"""What kind of file this is, by its content, without loading it. Pickles are walked, never run.

Nothing is accepted on the strength of this page: it finds the right words for a refusal. What may be loaded is decided
by safetensors_codec, torch_zip and torch_pickle, which take only what they fully understand.
"""

from __future__ import annotations

import bz2
import io
import lzma
import pickletools
import warnings
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from packhouse.digest import MiB
from packhouse.weights.safetensors_codec import regular_file

LOOK_BYTES = 4 * MiB
MAX_OPCODES = 400_000
MAX_GLOBALS = 200


class Kind(StrEnum):
    """Named as a person would say it."""

    SAFETENSORS = "safetensors"
    TORCH_ZIP = "torch-zip"
    TORCHSCRIPT = "TorchScript archive"
    EXPORTED = "torch.export program"
    TORCH_LEGACY = "torch file of before 1.6"
    PICKLE = "pickle"
    JOBLIB = "joblib file"
    NUMPY = "numpy file"
    HDF5 = "HDF5 or Keras file"
    ONNX = "ONNX model"
    GGUF = "GGUF file"
    COMPRESSED = "compressed file"
    ARCHIVE = "archive"
    EMPTY = "empty file"
    UNKNOWN = "file of an unknown kind"


@dataclass(frozen=True)
class Look:
    """What was seen. globals: what a pickle in it names, in order, as module.name; '?' where that is computed."""

    kind: Kind
    globals: tuple[str, ...] = ()
    inside: str = ""


def describe(path: Path) -> Look:
    """Reads at most the first 4 MiB and the last 1 MiB. Raises UnsafeWeights: not a regular file."""
    with regular_file(path) as descriptor, open(descriptor, "rb", closefd=False) as file:
        head = file.read(LOOK_BYTES)
        size = file.seek(0, io.SEEK_END)
        file.seek(max(0, size - MiB))
        return _describe(head, file.read(), size)


def _describe(head: bytes, tail: bytes, size: int) -> Look:
    if not head:
        return Look(Kind.EMPTY)
    if head.startswith(b"PK\x03\x04"):
        return _zip(head[:1024] + tail)
    if len(head) > 8 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= size - 8:
        return Look(Kind.SAFETENSORS)
    for magic, kind, inside in MAGIC:
        if head.startswith(magic):
            return Look(kind, _globals_of_npy(head) if magic == NPY else (), inside)
    for magic, name, unpack in PACKED:
        if head.startswith(magic):
            return _packed(head, name, unpack)
    if head[257:262] == b"ustar":
        return Look(Kind.ARCHIVE, inside="tar, as torch wrote it before 0.1.10")
    return _pickle(head) or _onnx(head) or Look(Kind.UNKNOWN)


NPY = b"\x93NUMPY"
MAGIC = (
    (NPY, Kind.NUMPY, "npy"),
    (b"\x89HDF\r\n\x1a\n", Kind.HDF5, "HDF5"),
    (b"GGUF", Kind.GGUF, ""),
    (b"7z\xbc\xaf\x27\x1c", Kind.ARCHIVE, "7z"),
    (b"\x28\xb5\x2f\xfd", Kind.COMPRESSED, "zstd"),
    (b"\x04\x22\x4d\x18", Kind.COMPRESSED, "lz4"),
)


def _decompress(make: Callable[[], Any]) -> Callable[[bytes], bytes]:
    """The first bytes only: a bomb is never unpacked."""
    return lambda data: bytes(make().decompress(data, MiB))


PACKED: tuple[tuple[bytes, str, Callable[[bytes], bytes]], ...] = (
    (b"\x1f\x8b", "gzip", _decompress(lambda: zlib.decompressobj(31))),
    *((bytes((0x78, level)), "zlib", _decompress(zlib.decompressobj)) for level in (0x01, 0x5E, 0x9C, 0xDA)),
    (b"BZh", "bz2", _decompress(bz2.BZ2Decompressor)),
    (b"\xfd7zXZ\x00", "xz", _decompress(lzma.LZMADecompressor)),
    (b"]\x00\x00", "lzma", _decompress(lambda: lzma.LZMADecompressor(lzma.FORMAT_ALONE))),
)


def _packed(head: bytes, name: str, unpack: Callable[[bytes], bytes]) -> Look:
    try:
        start = unpack(head)
    except (zlib.error, lzma.LZMAError, OSError, EOFError):
        # Not what its first bytes promise: still no weights file, and nothing more is to be said of it.
        return Look(Kind.COMPRESSED, inside=f"{name}, broken")
    found = _pickle(start)
    if found is None:
        return Look(Kind.COMPRESSED, inside=name)
    return Look(found.kind, found.globals, f"{name}-compressed {found.inside}".strip())


def _zip(names: bytes) -> Look:
    """By the name of the first entry and the names in the directory, which stands at the end."""
    marks = (
        (b"/constants.pkl", Kind.TORCHSCRIPT, ""),
        (b"/models/model.json", Kind.EXPORTED, ""),
        (b"/serialized_exported_program.json", Kind.EXPORTED, ""),
        (b"model.weights.h5", Kind.HDF5, "Keras"),
        (b"MAR-INF/", Kind.ARCHIVE, "torch model archive (MAR)"),
        (b"/data.pkl", Kind.TORCH_ZIP, ""),
        (b".npyPK", Kind.NUMPY, "npz"),
    )
    for mark, kind, inside in marks:
        if mark in names:
            return Look(kind, inside=inside)
    return Look(Kind.ARCHIVE, inside="zip")


def _globals_of_npy(head: bytes) -> tuple[str, ...]:
    start = head.find(b"\x80")
    return tuple(walk(head[start:]).globals) if b"'|O'" in head[:256] and start > 0 else ()


# torch's own magic number, pickled first in the format of before 1.6.
LEGACY = 0x1950A86A20F9469CFC6C


def _pickle(head: bytes) -> Look | None:
    seen = walk(head)
    names = tuple(seen.globals)
    if seen.first == LEGACY:
        return Look(Kind.TORCH_LEGACY, names)
    marked = head[:1] == b"\x80" and head[1:2] <= b"\x06"
    if not names and not marked and not (seen.stopped and seen.at == len(head) > 1):
        return None
    kind = Kind.JOBLIB if any(name.startswith("joblib.numpy_pickle") for name in names) else Kind.PICKLE
    inside = "cloudpickle" if any(name.startswith("cloudpickle.") for name in names) else ""
    return Look(kind, names, inside)


def _onnx(head: bytes) -> Look | None:
    """A protobuf whose first field is ir_version (1 to 20), and which names an opset or a producer early on."""
    early = head[:64]
    if head[:1] == b"\x08" and b"\0" < head[1:2] <= b"\x14" and (b"\x12" in early or b":" in early or b"B" in early):
        return Look(Kind.ONNX)
    return None


def walk(stream: bytes) -> Walk:
    """Walks the pickles of any protocol that stand one behind the other. Runs nothing, raises nothing.

    What follows the first byte that is not an opcode stays unseen, as in joblib files, where arrays lie between.
    """
    seen, file = Walk(), io.BytesIO(stream)
    try:
        _walk_all(stream, file, seen)
    except (ValueError, IndexError, KeyError, OverflowError, MemoryError):
        # Cut off or no pickle: what was seen until here is the answer.
        seen.stopped = False
    return seen


def _walk_all(stream: bytes, file: io.BytesIO, seen: Walk) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pickletools warns of escapes in old-style texts
        while seen.at == 0 or stream[seen.at : seen.at + 1] == b"\x80":
            for opcode, argument, _ in pickletools.genops(file):
                seen.step(opcode.name, argument)
                if seen.steps >= MAX_OPCODES or len(seen.globals) >= MAX_GLOBALS:
                    return
            seen.at = file.tell()


class Walk:
    """What a walk saw. Follows texts on the stack and in the memo as far as that tells which global is named.

    globals: in order. stopped: the stream ended as a pickle must. at: where it ended. first: the first value.
    """

    def __init__(self) -> None:
        self.globals: dict[str, None] = {}
        self.stopped = False
        self.at = self.steps = 0
        self.first: Any = None
        self._texts: list[str] = []
        self._memo: dict[int, str] = {}

    def step(self, opcode: str, argument: Any) -> None:
        self.steps += 1
        self.stopped = opcode == "STOP"
        if self.first is None and opcode not in ("PROTO", "FRAME"):
            self.first = opcode if argument is None else argument
        if opcode in ("GLOBAL", "INST"):
            self._name(str(argument).replace(" ", ".", 1))
        elif opcode == "STACK_GLOBAL":
            self._name(".".join(self._texts[-2:]) if len(self._texts) >= 2 else "?")
        elif opcode.startswith("EXT"):
            self._name(f"copyreg extension {argument}")
        elif "UNICODE" in opcode or "STRING" in opcode:
            self._push(str(argument))
        elif opcode in ("MEMOIZE", "PUT", "BINPUT", "LONG_BINPUT"):
            self._memo[len(self._memo) if argument is None else argument] = self._texts[-1] if self._texts else "?"
        elif opcode in ("GET", "BINGET", "LONG_BINGET"):
            self._push(self._memo.get(argument, "?"))

    def _name(self, name: str) -> None:
        self.globals[name[:200]] = None
        self._push("?")

    def _push(self, text: str) -> None:
        self._texts = [*self._texts[-7:], text]
