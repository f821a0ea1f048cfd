"""Do loaded weights fit the architecture, and are their values sound? The questions in their fixed order."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypedDict

import torch

from packhouse.errors import UnsafeWeights, WeightsInvalid
from packhouse.weights.safetensors_torch import dtype_name
from packhouse.weights.torch_pickle import SAVE

Tensors = dict[str, torch.Tensor]
CHUNK = 1 << 20


class Expected(TypedDict):
    """One tensor of the architecture. dtype: as safetensors names it, as F32, or as torch does, as float32."""

    dtype: str
    shape: list[int]


def fitted(
    where: str, tensors: Tensors, expected: Mapping[str, Expected], aliases: Mapping[str, str]
) -> tuple[Tensors, dict[str, str]]:
    """The tensors, each shared one once and by name, and the ties. where: the file's name.

    Raises WeightsInvalid, or UnsafeWeights where bytes are no values of their dtype.
    """
    _check_names(where, tensors, expected, aliases)
    _check_dtypes(where, tensors, expected)
    _check_shapes(where, tensors, expected)
    kept, ties = _untie(where, tensors, aliases)
    for name, tensor in kept.items():
        _check_values(where, name, tensor)
    return kept, ties


def _check_names(where: str, tensors: Tensors, expected: Mapping[str, Expected], aliases: Mapping[str, str]) -> None:
    if not tensors:
        raise WeightsInvalid("PH-0555 no tensors at all", where=where, want=f"{len(expected)} tensors", next=SAVE)
    present = tensors.keys() | {alias for alias, target in aliases.items() if target in tensors}
    present |= {target for alias, target in aliases.items() if alias in tensors}
    missing, extra = sorted(expected.keys() - present), sorted(tensors.keys() - expected.keys())
    if not missing and not extra:
        return
    parts = [f"{word}: {few(names)}" for word, names in (("missing", missing), ("not expected", extra)) if names]
    raise WeightsInvalid(
        "PH-0554 names differ from the architecture's",
        where=where,
        got="; ".join(parts),
        next=_naming(tensors, expected),
    )


WRAPPERS = {"module.": "DataParallel or DDP", "_orig_mod.": "torch.compile"}


def _naming(tensors: Tensors, expected: Mapping[str, Expected]) -> str:
    """What to do about the names. A prefix is never stripped in silence: it may name a part of a larger model."""
    first = min(tensors)
    for end in (at + 1 for at, char in enumerate(first) if char == "."):
        prefix = first[:end]
        if not all(name.startswith(prefix) for name in tensors):
            break
        if {name.removeprefix(prefix) for name in tensors} & expected.keys():
            wrapper = f" ({WRAPPERS[prefix]})" if prefix in WRAPPERS else ""
            return f"every name begins with {prefix!a}{wrapper}: save model.{prefix[:-1]}.state_dict() instead"
    return "build the architecture with the arguments of the training run, or save the model that it describes"


def _check_dtypes(where: str, tensors: Tensors, expected: Mapping[str, Expected]) -> None:
    for name, tensor in tensors.items():
        got, want = dtype_name(tensor.dtype), _dtype(expected[name]["dtype"])
        if got != want:
            raise WeightsInvalid(
                "PH-0553 dtype differs from the architecture's", where=f"{where}: {name}", got=got, want=want,
                next="save the weights as they were trained, or convert them: model.to(...) before state_dict()",
            )  # fmt: skip


def _dtype(name: str) -> str:
    found = getattr(torch, name.removeprefix("torch."), None)
    return dtype_name(found) if isinstance(found, torch.dtype) else name


def _check_shapes(where: str, tensors: Tensors, expected: Mapping[str, Expected]) -> None:
    for name, tensor in tensors.items():
        got, want = list(tensor.shape), list(expected[name]["shape"])
        if got != want:
            raise WeightsInvalid(
                "PH-0552 shape differs from the architecture's", where=f"{where}: {name}", got=str(got), want=str(want),
                next="build the architecture with the arguments of the training run",
            )  # fmt: skip


def _untie(where: str, tensors: Tensors, aliases: Mapping[str, str]) -> tuple[Tensors, dict[str, str]]:
    """The tensors with each shared one once, under its target's name, and the ties."""
    kept = dict(tensors)
    for alias, target in aliases.items():
        tensor = kept.pop(alias, None)
        if tensor is not None and not _equal(kept.setdefault(target, tensor), tensor):
            raise WeightsInvalid(
                "PH-0551 tied tensors differ", where=f"{where}: {alias}", want=f"the values of {target}",
                next="save the model after its weights were tied",
            )  # fmt: skip
    return dict(sorted(kept.items())), dict(aliases)


# Values


def _chunks(tensor: torch.Tensor) -> Iterable[torch.Tensor]:
    """The items in order, a million at a time; only a tensor that lies askew is copied."""
    flat = tensor.contiguous().view(-1)
    return (flat[start : start + CHUNK] for start in range(0, flat.numel(), CHUNK))


def _equal(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Equal to the bit: NaN equals itself here, and is refused later by its own name."""
    if one.data_ptr() == other.data_ptr() and one.stride() == other.stride():
        return True
    return all(
        torch.equal(a.view(torch.uint8), b.view(torch.uint8)) for a, b in zip(_chunks(one), _chunks(other), strict=True)
    )


def _check_values(where: str, name: str, tensor: torch.Tensor) -> None:
    at = f"{where}: {name}"
    if tensor.dtype is torch.bool and any((part.view(torch.uint8) > 1).any() for part in _chunks(tensor)):
        raise UnsafeWeights("PH-0549 bool tensor holds bytes that are neither 0 nor 1", where=at, next=SAVE)
    if not tensor.is_floating_point() and not tensor.is_complex():
        return
    _check_finite(at, tensor)
    if name.rpartition(".")[2] == "running_var" and any((part < 0).any() for part in _chunks(tensor)):
        raise WeightsInvalid(
            "PH-0550 variance of a batch norm is negative", where=at, got=f"{tensor.min().item():.4g}",
            want="0 or more",
            next="the training run or the file is broken: train or save again",
        )  # fmt: skip


def _check_finite(at: str, tensor: torch.Tensor) -> None:
    nan, infinite, first = 0, 0, -1
    for number, part in enumerate(_chunks(tensor)):
        part = part.float() if part.element_size() == 1 else part
        finite = torch.isfinite(part)
        if not finite.all():
            bad, nans = ~finite, int(torch.isnan(part).sum())
            nan, infinite = nan + nans, infinite + int(bad.sum()) - nans
            first = first if first >= 0 else number * CHUNK + int(bad.nonzero()[0])
    if first >= 0:
        raise WeightsInvalid(
            "PH-0548 values are not finite",
            where=at,
            got=f"{nan:,} NaN and {infinite:,} infinite of {tensor.numel():,}, first at {_index(first, tensor.shape)}",
            next="the training run diverged: publish an earlier checkpoint",
        )


def _index(flat: int, shape: Iterable[int]) -> list[int]:
    """Where the item of that number stands, row-major."""
    index = []
    for size in reversed(list(shape)):
        flat, place = divmod(flat, size)
        index.append(place)
    return index[::-1]


def few(names: list[str], most: int = 5) -> str:
    """The first five and how many there are beyond."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
