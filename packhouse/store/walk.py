"""The objects of a file store, in the order of their keys, one folder in memory at a time."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from packhouse.store.base import Stat, is_key
from packhouse.store.folders import disk_errors, folder


def walk(root: Path, prefix: str) -> Iterator[Stat]:
    """Regular files whose key begins with `prefix`. Links, pipes and names that are no keys are not objects."""
    *parts, beginning = prefix.split("/")
    return _below(root, parts, beginning)


def stat_of(key: str, found: os.stat_result) -> Stat:
    return Stat(key, found.st_size, f"{found.st_ino:x}-{found.st_mtime_ns:x}-{found.st_size:x}", found.st_mtime)


def _below(root: Path, parts: Sequence[str], beginning: str) -> Iterator[Stat]:
    for name, found in _entries(root, parts):
        key = "/".join([*parts, name])
        if not name.startswith(beginning) or not is_key(key):
            continue
        if stat.S_ISDIR(found.st_mode):
            yield from _below(root, [*parts, name], "")
        elif stat.S_ISREG(found.st_mode):
            yield stat_of(key, found)


def _entries(root: Path, parts: Sequence[str]) -> list[tuple[str, os.stat_result]]:
    """A folder's entries in the order of the keys in it: a folder counts as its name with the `/` that follows."""
    with disk_errors("/".join([str(root), *parts])):
        try:
            with folder(root, parts, create=False) as parent, os.scandir(parent) as entries:
                found = [(entry.name, _lstat(entry.name, parent)) for entry in entries]
        except (FileNotFoundError, NotADirectoryError):
            return []
    there = [(name, result) for name, result in found if result]
    return sorted(there, key=lambda entry: entry[0] + "/" * stat.S_ISDIR(entry[1].st_mode))


def _lstat(name: str, parent: int) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:  # deleted between the listing and the look
        return None
