"""Mutated archives: refused by name, or read by torch exactly as we read them. Never another exception."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch

from packhouse.errors import UnsafeWeights
from packhouse.weights.file_kind import Kind, describe, walk
from packhouse.weights.safetensors_torch import DTYPES
from packhouse.weights.torch_pickle import StoredTensor, read_checkpoint
from packhouse.weights.torch_zip import Archive, read_archive
from tests.corpus.builders import healthy, records, saved, with_pickle

STORAGES = {name.rpartition("/")[2]: data for name, data in records().items() if "/data/" in name}


STARTS = [
    b"",
    b"\x80\x02",
    b"\x80\x04",
    b"PK\x03\x04",
    b"\x1f\x8b",
    b"x\x9c",
    b"BZh",
    b"\xfd7zXZ\0",
    b"]\0\0",
    b"\x93NUMPY",
]


def _described(value: Any) -> Any:
    """A value with each tensor as (dtype, shape, stride, offset), so that two readings compare."""
    if isinstance(value, StoredTensor):
        return DTYPES[value.dtype], value.shape, value.stride, value.offset
    if isinstance(value, torch.Tensor):
        return value.dtype, tuple(value.shape), value.stride(), value.storage_offset()
    if isinstance(value, dict):
        return {key: _described(item) for key, item in value.items()}
    return [_described(item) for item in value] if isinstance(value, list | tuple) else repr(value)


def _accepted_alike(path: Path) -> bool:
    try:
        ours = read_checkpoint(read_archive(path), path.name)
    except UnsafeWeights:
        return False
    theirs = torch.load(path, weights_only=True, mmap=True, map_location="cpu")
    assert _described(ours) == _described(theirs)
    return True


@pytest.mark.parametrize("seed", range(4))
def test_archives_with_changed_bytes_are_refused_or_read_as_torch_reads_them(seed: int, tmp_path: Path) -> None:
    chance, content, taken = random.Random(seed), saved(healthy()), 0
    for _ in range(500):
        changed = bytearray(content)
        for _ in range(chance.choice((1, 1, 2, 5))):
            changed[chance.randrange(len(changed))] = chance.randrange(256)
        (tmp_path / "x.pt").unlink(missing_ok=True)
        (tmp_path / "x.pt").write_bytes(changed)
        taken += _accepted_alike(tmp_path / "x.pt")
    assert taken < 300


@pytest.mark.parametrize("seed", range(4))
def test_pickles_with_changed_opcodes_are_refused_or_read_as_torch_reads_them(seed: int, tmp_path: Path) -> None:
    """The checksums are right here: the machine alone must hold."""
    chance, pickle = random.Random(seed), records()["archive/data.pkl"]
    opcodes = b"N\x88\x89)]}KMJGhjqr\x85\x86\x87\x8acX(taesubRQ.0\x93P\x81"
    for _ in range(500):
        changed = bytearray(pickle)
        for _ in range(chance.choice((1, 1, 2, 5))):
            at = chance.randrange(len(changed))
            changed[at : at + chance.choice((0, 1, 1, 2))] = bytes(chance.choices(opcodes + bytes(range(8)), k=1))
        (tmp_path / "x.pt").unlink(missing_ok=True)
        (tmp_path / "x.pt").write_bytes(with_pickle(bytes(changed), STORAGES))
        _accepted_alike(tmp_path / "x.pt")


@pytest.mark.parametrize("seed", range(4))
def test_the_look_and_the_machine_survive_any_bytes(seed: int, tmp_path: Path) -> None:
    chance = random.Random(seed)
    for _ in range(400):
        content = chance.choice(STARTS) + chance.randbytes(chance.randrange(1 + chance.randrange(200)))
        (tmp_path / "x").write_bytes(content)
        assert describe(tmp_path / "x").kind is not Kind.SAFETENSORS
        walk(content)
        with pytest.raises(UnsafeWeights):
            read_checkpoint(Archive(pickle=b"\x80\x02" + content, storages={"0": 4}), "x")


def test_what_torch_save_writes_is_read_as_torch_reads_it(tmp_path: Path) -> None:
    base = torch.arange(24.0)
    value = {
        "weights": {
            "a": base[3:9],
            "b": base.view(4, 6).T,
            "c": torch.nn.Parameter(torch.ones(2)),
            "d": torch.empty(0),
        },
        "plain": [1, -1, 2**40, 0.5, None, True, "text", (1, 2)],
        "float8": torch.ones(2).to(torch.float8_e5m2),
    }
    torch.save(value, tmp_path / "x.pt")
    assert _accepted_alike(tmp_path / "x.pt")
