"""Tensors in files, as torch tensors. Needs torch; the rules of the file are in packhouse.weights.safetensors_codec."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from packhouse.errors import WeightsInvalid
from packhouse.weights.safetensors_codec import (
    ITEM_BYTES,
    LIMITS,
    Buffer,
    Mapped,
    Raw,
    TensorInfo,
    TensorLimits,
    open_mapped,
    write,
)

DTYPES = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "I16": torch.int16,
    "U16": torch.uint16,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I32": torch.int32,
    "U32": torch.uint32,
    "F32": torch.float32,
    "I64": torch.int64,
    "U64": torch.uint64,
    "F64": torch.float64,
    "C64": torch.complex64,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}


def read_torch(path: Path, *, limits: TensorLimits = LIMITS) -> dict[str, torch.Tensor]:
    """The tensors on the CPU, over the mapped file: no copy until one is changed, and then only of its pages.

    In the order of their names. Raises as packhouse.weights.safetensors_codec.read_header.
    """
    mapped = open_mapped(path, limits=limits)
    return {name: _tensor(mapped, mapped.header.tensors[name]) for name in sorted(mapped.header.tensors)}


def write_torch(path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Writes the canonical file. Tensors of any layout and device; at most one of them is copied at a time.

    Law: read_torch gives back equal tensors. Raises WeightsInvalid: sparse, quantised, or a dtype that
    safetensors has not.
    """
    write(path, {name: _raw(name, tensor) for name, tensor in tensors.items()}, metadata)


def dtype_name(dtype: torch.dtype) -> str:
    """The dtype as safetensors names it. Raises WeightsInvalid where it has no name for it."""
    if dtype not in NAMES:
        raise WeightsInvalid("PH-0333 no such dtype in safetensors", got=str(dtype), want=" ".join(NAMES.values()))
    return NAMES[dtype]


def _tensor(mapped: Mapped, info: TensorInfo) -> torch.Tensor:
    dtype, start = DTYPES[info.dtype], mapped.header.data_start + info.begin
    if info.begin == info.end:
        return torch.empty(info.shape, dtype=dtype)
    if start % ITEM_BYTES[info.dtype]:
        # Another writer's order: items that lie askew can not be viewed in place.
        data = bytearray(memoryview(mapped.memory)[start : mapped.header.data_start + info.end])
        return torch.frombuffer(data, dtype=dtype).reshape(info.shape)
    count = (info.end - info.begin) // ITEM_BYTES[info.dtype]
    return torch.frombuffer(mapped.memory, dtype=dtype, count=count, offset=start).reshape(info.shape)


def _raw(name: str, tensor: torch.Tensor) -> Raw:
    if tensor.layout is not torch.strided or tensor.is_quantized or tensor.is_meta:
        kind = "meta" if tensor.is_meta else "quantised" if tensor.is_quantized else str(tensor.layout)
        raise WeightsInvalid("PH-0339 not a plain tensor", where=name, got=kind, want="dense values in memory")
    return Raw(dtype_name(tensor.dtype), tuple(tensor.shape), lambda: _bytes(tensor))


def _bytes(tensor: torch.Tensor) -> Buffer:
    plain = tensor.detach().resolve_conj().resolve_neg().cpu().contiguous()
    data: Buffer = plain.reshape(-1).view(torch.uint8).numpy().data
    return data
