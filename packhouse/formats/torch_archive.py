"""Writes torch's zip archives so that equal models give equal bytes: a fixed top folder, no debug records, no ids,
no times, entries stored and tensors aligned as torch's reader maps them."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

TOP = "model"
ALIGNMENT = 64  # bytes; torch maps tensors from here
_DROPPED = (".debug_pkl", "/.data/serialization_id")
_EPOCH = (1980, 1, 1, 0, 0, 0)

EXAMPLES = "data/sample_inputs/"
"""Where torch.export.save writes the example inputs of a program, as a pickle; an empty file where there are none."""


def canonical(source: Path, target: Path, *, emptied: tuple[str, ...] = ()) -> None:
    """Rewrites the archive `source` to `target`. emptied: beginnings of names below the top folder whose entries lose
    their bytes. Memory: one chunk. Law: canonical(canonical(x)) == canonical(x)."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as new:
        for entry in sorted(old.infolist(), key=lambda entry: entry.filename.split("/", 1)[1]):
            if entry.filename.split("/", 1)[1].startswith(emptied):
                new.writestr(_entry(entry.filename), b"")
            elif not entry.filename.endswith(_DROPPED):
                _copy(old, entry, new)


def _entry(filename: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(f"{TOP}/{filename.split('/', 1)[1]}", _EPOCH)
    info.create_system, info.external_attr = 0, 0
    return info


def _copy(old: zipfile.ZipFile, entry: zipfile.ZipInfo, new: zipfile.ZipFile) -> None:
    info = _entry(entry.filename)
    info.file_size = entry.file_size
    if entry.file_size:
        assert new.fp is not None
        # Local header: 30 bytes, the name, this extra field (4 bytes and its padding); above 2 GiB zipfile adds 20.
        large = 20 if entry.file_size * 1.05 > zipfile.ZIP64_LIMIT else 0
        padding = -(new.fp.tell() + 30 + len(info.filename.encode()) + 4 + large) % ALIGNMENT
        info.extra = b"FB" + padding.to_bytes(2, "little") + b"Z" * padding
    with old.open(entry) as source, new.open(info, "w") as target:
        shutil.copyfileobj(source, target, 1 << 20)
