"""How a file store writes: a temporary file, checked and on disk before it gets its name, and locks beside it."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import io
import os
import secrets
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from packhouse.errors import Contention
from packhouse.store.folders import folder

STAGING, LOCKS = ".tmp", ".locks"
ABANDONED_S = 24 * 3600
"""A temporary file that nobody has written to for so long was left by a writer that was killed."""
SWEEP_AT_MOST = 1000
LOCK_WAIT_S = 10.0


@contextmanager
def staged(root: Path, stream: Iterable[bytes]) -> Iterator[tuple[int, str]]:
    """The stream as a file on disk without a name that anybody sees: the descriptor of its folder, and its name there.

    The caller gives it a name by link or replace. What it did not take is removed at the end.
    """
    with folder(root, [STAGING], create=True) as parent:
        name = f"{os.getpid()}-{secrets.token_hex(8)}"
        descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666, dir_fd=parent)
        try:
            with io.FileIO(descriptor, "w") as file:
                for chunk in stream:
                    _write_all(file.fileno(), chunk)
                _make_its_time_unique(file.fileno())
                os.fsync(file.fileno())
            yield parent, name
        finally:
            _unlink_if_there(name, parent)


def sweep(root: Path) -> None:
    """Removes what killed writers left, a bounded number of files at a time."""
    oldest = time.time() - ABANDONED_S
    with folder(root, [STAGING], create=True) as parent, os.scandir(parent) as entries:
        for _, entry in zip(range(SWEEP_AT_MOST), entries, strict=False):
            if _mtime(entry.name, parent) < oldest:
                _unlink_if_there(entry.name, parent)


@contextmanager
def locked(root: Path, key: str) -> Iterator[None]:
    """One holder a key, over processes and threads. Raises Contention after LOCK_WAIT_S seconds.

    Keys share 256 lock files, which are never removed: removing a lock file lets two holders in.
    """
    name = hashlib.sha256(key.encode()).hexdigest()[:2]
    with folder(root, [LOCKS], create=True) as parent:
        descriptor = os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666, dir_fd=parent)
    try:
        _take(descriptor, key)
        yield
    finally:
        os.close(descriptor)  # which also lets go of the lock


def _take(descriptor: int, key: str) -> None:
    # flock and not lockf: a lock of lockf is shared by all threads of the process.
    deadline, pause = time.monotonic() + LOCK_WAIT_S, 0.0005
    while True:
        try:
            return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in {errno.EAGAIN, errno.EACCES}:
                raise
        if time.monotonic() > deadline:
            raise Contention(f"PH-0300 another writer has held the lock for {LOCK_WAIT_S:.0f} s", where=key)
        time.sleep(pause)
        pause = min(2 * pause, 0.02)


def _make_its_time_unique(descriptor: int) -> None:
    # A version is inode, time and size. The kernel stamps files by its tick (4 ms) and gives a freed inode to the
    # next file, so that two quick writes of one size could look the same. The clock itself counts nanoseconds.
    now = time.time_ns()
    os.utime(descriptor, ns=(now, now))


def _write_all(descriptor: int, chunk: bytes) -> None:
    view = memoryview(chunk)
    while view:
        view = view[os.write(descriptor, view) :]


def _mtime(name: str, parent: int) -> float:
    try:
        return os.stat(name, dir_fd=parent, follow_symlinks=False).st_mtime
    except FileNotFoundError:  # its writer has just finished
        return time.time()


def _unlink_if_there(name: str, parent: int) -> None:
    try:
        os.unlink(name, dir_fd=parent)
    except FileNotFoundError:
        return
