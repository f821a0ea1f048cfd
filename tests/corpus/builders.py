"""What the make.py of the cases share: a healthy model, and bytes that lie in one chosen way.

A payload only ever touches the canary: a file beside the input that must not exist after the check.
"""

from __future__ import annotations

import io
import json
import pickle
import struct
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

CANARY = "canary"
Variant = Callable[[Path], Path]


def healthy() -> dict[str, torch.Tensor]:
    """A small MLP with a batch norm: 8 tensors, float32 and one int64."""
    generator = torch.Generator().manual_seed(7)
    return {
        "0.weight": torch.randn(6, 4, generator=generator),
        "0.bias": torch.randn(6, generator=generator),
        "1.weight": torch.ones(6),
        "1.bias": torch.zeros(6),
        "1.running_mean": torch.zeros(6),
        "1.running_var": torch.ones(6),
        "1.num_batches_tracked": torch.tensor(3),
        "2.weight": torch.randn(3, 6, generator=generator),
    }


def expected(tensors: Mapping[str, torch.Tensor]) -> dict[str, dict[str, Any]]:
    from packhouse.weights.safetensors_torch import dtype_name

    return {name: {"dtype": dtype_name(t.dtype), "shape": list(t.shape)} for name, t in tensors.items()}


def canary(folder: Path) -> str:
    return str(folder / CANARY)


# safetensors


def safetensors(header: Any, data: bytes = b"", *, length: int | None = None) -> bytes:
    """A file of this header: bytes as they are, or a document as JSON. length: the lie, if any."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw) if length is None else length) + raw + data


def entry(shape: Any = (2,), begin: Any = 0, end: Any = 8, dtype: Any = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def files(name: str, contents: Mapping[str, bytes | Callable[[], bytes]]) -> dict[str, Variant]:
    """Variants that are one file each, all of one name."""

    def one(content: bytes | Callable[[], bytes]) -> Variant:
        def make(folder: Path) -> Path:
            path = folder / name
            path.write_bytes(content() if callable(content) else content)
            return path

        return make

    return {variant: one(content) for variant, content in contents.items()}


# torch archives


def saved(value: Any, **how: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, **how)
    return buffer.getvalue()


def records(value: Any = None) -> dict[str, bytes]:
    """The entries of what torch.save writes, by name; the top folder is 'archive'."""
    with zipfile.ZipFile(io.BytesIO(saved(healthy() if value is None else value))) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def zipped(entries: Iterable[tuple[str, bytes]], compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, data in entries:
            archive.writestr(zipfile.ZipInfo(name), data, compression)
    return buffer.getvalue()


def with_pickle(data_pkl: bytes, storages: Mapping[str, bytes] | None = None) -> bytes:
    """A torch archive whose data.pkl is this, with these storages."""
    fixed = {"archive/data.pkl": data_pkl, "archive/byteorder": b"little"}
    held = {f"archive/data/{key}": data for key, data in (storages or {}).items()}
    return zipped((fixed | held | {"archive/version": b"3\n"}).items())


# Pickle, by hand


def text(value: str) -> bytes:
    raw = value.encode()
    return b"X" + struct.pack("<L", len(raw)) + raw


def number(value: int) -> bytes:
    raw = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes((len(raw),)) + raw


def items(*values: bytes) -> bytes:
    """A tuple."""
    return b"(" + b"".join(values) + b"t"


def global_(module: str, name: str) -> bytes:
    return b"c" + f"{module}\n{name}\n".encode()


def call(module: str, name: str, *arguments: bytes) -> bytes:
    return global_(module, name) + items(*arguments) + b"R"


def state_dict(*pairs: tuple[str, bytes]) -> bytes:
    """A protocol 2 pickle of a dict of these values."""
    return b"\x80\x02}(" + b"".join(text(name) + value for name, value in pairs) + b"u."


def storage(
    kind: str = "FloatStorage", key: str = "0", count: int = 6, location: str = "cpu", module: str = "torch"
) -> bytes:
    return items(text("storage"), global_(module, kind), text(key), text(location), number(count)) + b"Q"


HOOKS = call("collections", "OrderedDict")


def tensor(
    stored: bytes | None = None, offset: int = 0, shape: Iterable[int] = (6,), stride: Iterable[int] = (1,),
    hooks: bytes = HOOKS, function: str = "_rebuild_tensor_v2", extra: bytes = b"",
) -> bytes:  # fmt: skip
    shape, stride = items(*map(number, shape)), items(*map(number, stride))
    stored = storage() if stored is None else stored
    return call("torch._utils", function, stored, number(offset), shape, stride, b"\x89", hooks + extra)


class Payload:
    """Touches the canary when it is unpickled by someone careless."""

    def __init__(self, folder: Path) -> None:
        self.command = f"touch {canary(folder)}"

    def __reduce__(self) -> Any:
        import os

        return os.system, (self.command,)


def pickled(value: Any, protocol: int) -> bytes:
    return pickle.dumps(value, protocol)
