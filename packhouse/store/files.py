"""A store in a folder of this machine: the embedded default, and as strict as the best object store.

An object is a file that is never changed in place: each write makes a new one, and gives it its name in one step.
"""

from __future__ import annotations

import errno
import io
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import quote

from packhouse.digest import CHUNK, digest_bytes, verified
from packhouse.errors import DigestMismatch, LimitExceeded, NotFound, Refused, StoreUnavailable
from packhouse.store.atomic import locked, staged, sweep
from packhouse.store.base import Stat, checked_key, checked_prefix
from packhouse.store.body import opened
from packhouse.store.folders import disk_errors, folder, is_folder, open_object, refuse_link
from packhouse.store.walk import stat_of, walk

_COMMIT_ATTEMPTS = 20
_STILL_IN_USE = {errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT}


class FileStore:
    """`root` is made at the first write. Needs a file system with hard links, and flock for `swap`."""

    def __init__(self, root: Path) -> None:
        self._root = root.resolve()
        if self._root.exists() and not self._root.is_dir():
            raise Refused("PH-0306 a store is a folder, this is a file", where=str(self._root))
        self._swept = False

    @property
    def url(self) -> str:
        return f"file://{quote(str(self._root))}"

    def stat(self, key: str) -> Stat | None:
        *parts, name = checked_key(key).split("/")
        with disk_errors(self._where(key)):
            try:
                with folder(self._root, parts, create=False) as parent:
                    refuse_link(name, parent)
                    found = os.stat(name, dir_fd=parent, follow_symlinks=False)
            except (FileNotFoundError, NotADirectoryError):
                return None
        return stat_of(key, found) if stat.S_ISREG(found.st_mode) else None

    def read(self, key: str, *, digest: str, size: int) -> Iterator[bytes]:
        file = self._open(key)
        found = os.fstat(file.fileno()).st_size
        if found != size:
            file.close()
            raise DigestMismatch(
                "PH-0128 size differs", where=self._where(key), got=f"{found:,} bytes", want=f"{size:,}"
            )
        return verified(self._chunks(file, key), digest=digest, size=size, where=self._where(key))

    def get(self, key: str, *, limit: int) -> tuple[bytes, str]:
        where = self._where(key)
        file = self._open(key)
        found = stat_of(key, os.fstat(file.fileno()))
        if found.size > limit:
            file.close()
            raise LimitExceeded(
                "PH-0305 document is too large", where=where, got=f"{found.size:,} bytes", want=f"{limit:,}"
            )
        return b"".join(self._chunks(file, key)), found.version

    def put(self, key: str, body: bytes | Path, *, digest: str) -> None:
        with opened(body) as source:
            stream = verified(source.chunks(), digest=digest, size=source.size, where=self._where(key))
            self._replace(key, stream)

    def put_declared(self, key: str, body: bytes, *, digest: str) -> None:
        """The check of `put` is the store's own."""
        self.put(key, body, digest=digest)

    def put_if_absent(self, key: str, body: bytes | Path, *, digest: str) -> bool:
        if self.stat(key):
            return False
        with opened(body) as source, disk_errors(self._where(key)):
            self._sweep_once()
            stream = verified(source.chunks(), digest=digest, size=source.size, where=self._where(key))
            with staged(self._root, stream) as (folder_of_temp, temp):
                return self._link(folder_of_temp, temp, key)

    def swap(self, key: str, body: bytes, *, expected: str | None) -> bool:
        if expected is None:
            return self.put_if_absent(key, body, digest=digest_bytes(body))
        with disk_errors(self._where(key)), ExitStack() as held:
            self._sweep_once()
            folder_of_temp, temp = held.enter_context(staged(self._root, [body]))
            held.enter_context(locked(self._root, key))
            found = self.stat(key)
            if found is None or found.version != expected:
                return False
            self._rename(folder_of_temp, temp, key)
            return True

    def copy(self, source: str, target: str) -> None:
        checked_key(target)
        self._replace(target, self._chunks(self._open(source), source))

    def delete(self, key: str) -> None:
        *parts, name = checked_key(key).split("/")
        if self.stat(key) is None:
            return
        with disk_errors(self._where(key)), locked(self._root, key):
            try:
                with folder(self._root, parts, create=False) as parent:
                    os.unlink(name, dir_fd=parent)
                    os.fsync(parent)
            except FileNotFoundError:  # another delete was first
                return
            self._prune(parts)

    def list(self, prefix: str = "") -> Iterator[Stat]:
        return walk(self._root, checked_prefix(prefix))

    def _where(self, key: str) -> str:
        return f"{self._root}/{key}"

    def _open(self, key: str) -> io.FileIO:
        *parts, name = checked_key(key).split("/")
        with disk_errors(self._where(key)):
            try:
                with folder(self._root, parts, create=False) as parent:
                    return open_object(name, parent)
            except (FileNotFoundError, NotADirectoryError) as error:
                raise NotFound("PH-0304 no such object", where=self._where(key)) from error

    def _chunks(self, file: io.FileIO, key: str) -> Iterator[bytes]:
        with file:
            while True:
                with disk_errors(self._where(key)):
                    chunk = file.read(CHUNK)
                if not chunk:
                    return
                yield chunk

    def _replace(self, key: str, stream: Iterable[bytes]) -> None:
        # The lock is for swap's sake: nothing may come between its look at the version and its write.
        with disk_errors(self._where(key)), ExitStack() as held:
            self._sweep_once()
            folder_of_temp, temp = held.enter_context(staged(self._root, stream))
            held.enter_context(locked(self._root, key))
            self._rename(folder_of_temp, temp, key)

    def _link(self, folder_of_temp: int, temp: str, key: str) -> bool:
        def link(parent: int, name: str) -> None:
            if is_folder(name, parent):  # link would say "exists", and there is no object
                raise IsADirectoryError(errno.EISDIR, "a folder", name)
            os.link(temp, name, src_dir_fd=folder_of_temp, dst_dir_fd=parent, follow_symlinks=False)

        try:
            self._commit(key, link)
        except FileExistsError:
            return False
        return True

    def _rename(self, folder_of_temp: int, temp: str, key: str) -> None:
        def rename(parent: int, name: str) -> None:
            refuse_link(name, parent)
            os.replace(temp, name, src_dir_fd=folder_of_temp, dst_dir_fd=parent)

        self._commit(key, rename)

    def _commit(self, key: str, act: Callable[[int, str], None]) -> None:
        *parts, name = checked_key(key).split("/")
        for _ in range(_COMMIT_ATTEMPTS):
            try:
                with folder(self._root, parts, create=True) as parent:
                    act(parent, name)
                    os.fsync(parent)
                return
            except FileNotFoundError:  # a delete has just removed the folder, which was empty: make it again
                continue
        raise StoreUnavailable(
            "PH-0303 the folder or the temporary file vanishes as fast as it is made", where=self._where(key)
        )

    def _prune(self, parts: Sequence[str]) -> None:
        """Removes the folders that a delete left empty."""
        for depth in range(len(parts), 0, -1):
            try:
                with folder(self._root, parts[: depth - 1], create=False) as parent:
                    os.rmdir(parts[depth - 1], dir_fd=parent)
            except OSError as error:
                if error.errno in _STILL_IN_USE:
                    return
                raise

    def _sweep_once(self) -> None:
        if not self._swept:
            self._swept = True
            sweep(self._root)
