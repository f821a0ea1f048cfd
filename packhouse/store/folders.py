"""Folders below a store's root, reached one part at a time without following a symbolic link.

Everything that a file store does to an object, it does relative to an open folder. So a link that somebody plants
below the root, before or during the act, leads nowhere.
"""

from __future__ import annotations

import errno
import io
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from packhouse.errors import PackhouseError, Refused, StoreFull, StoreRefusal, StoreUnavailable

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_FULL = {errno.ENOSPC, errno.EDQUOT}
_REFUSED = {errno.EACCES, errno.EPERM, errno.EROFS}


@contextmanager
def disk_errors(where: str) -> Iterator[None]:
    """No bare OSError leaves: StoreFull, StoreRefusal (permissions, read-only), Refused (a symbolic link, a key that
    is also a folder) or StoreUnavailable (all others)."""
    try:
        yield
    except OSError as error:
        raise _named(error, where) from error


@contextmanager
def folder(root: Path, parts: Sequence[str], *, create: bool) -> Iterator[int]:
    """A descriptor of the folder root/parts. With `create`, missing folders are made, and are on disk.

    Raises FileNotFoundError and NotADirectoryError where there is no such folder, OSError ELOOP at a symbolic link.
    """
    if create and not root.is_dir():
        _make_root(root)
    here = os.open(root, _FOLDER)
    try:
        for part in parts:
            below = _enter(here, part, create=create)
            os.close(here)
            here = below
        yield here
    finally:
        os.close(here)


def open_object(name: str, parent: int) -> io.FileIO:
    """A regular file, for reading. Raises FileNotFoundError where there is none, ELOOP at a link."""
    refuse_link(name, parent)
    # O_NONBLOCK: not to wait for ever where somebody has put a pipe.
    descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=parent)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise FileNotFoundError(errno.ENOENT, "not a regular file", name)
    return io.FileIO(descriptor)


def refuse_link(name: str, parent: int) -> None:
    """Raises ELOOP where `name` is a symbolic link. O_NOFOLLOW guards the race; this tells it from other ends."""
    if stat.S_ISLNK(mode_of(name, parent)):
        raise OSError(errno.ELOOP, "a symbolic link", name)


def mode_of(name: str, parent: int) -> int:
    """The mode of what stands under the name itself, 0 where nothing does."""
    try:
        return os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return 0


def is_folder(name: str, parent: int) -> bool:
    return stat.S_ISDIR(mode_of(name, parent))


def _enter(here: int, part: str, *, create: bool) -> int:
    refuse_link(part, here)
    try:
        return os.open(part, _FOLDER | os.O_NOFOLLOW, dir_fd=here)
    except FileNotFoundError:
        if not create:
            raise
    try:
        os.mkdir(part, dir_fd=here)
    except FileExistsError:  # another writer made it a moment ago, and puts it on disk
        return os.open(part, _FOLDER | os.O_NOFOLLOW, dir_fd=here)
    os.fsync(here)
    return os.open(part, _FOLDER | os.O_NOFOLLOW, dir_fd=here)


def _make_root(root: Path) -> None:
    if not root.parent.is_dir():
        _make_root(root.parent)
    root.mkdir(exist_ok=True)
    above = os.open(root.parent, _FOLDER)
    try:
        os.fsync(above)
    finally:
        os.close(above)


def _named(error: OSError, where: str) -> PackhouseError:
    said = os.strerror(error.errno) if error.errno else str(error)
    if error.errno in _FULL:
        return StoreFull(said, where=where, next="free some space, or give the store a larger disk")
    if error.errno in _REFUSED:
        return StoreRefusal(said, where=where, next="let this user read and write the store's folder")
    if error.errno in {errno.ENOTDIR, errno.EISDIR}:
        return Refused(
            "PH-0307 in a file store no key can be both an object and the beginning of another key", where=where
        )
    if error.errno == errno.ELOOP:
        return Refused("PH-0308 a symbolic link inside the store", where=where, next="put the file itself there")
    return StoreUnavailable(said, where=where)
