"""The worker's local folder: files by their digest, and one private folder for each step that runs.

May be deleted whenever no run is under way. Nothing here is the truth: the store is.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from packhouse.artifact import Artifact, Beside
from packhouse.digest import digest_bytes, digest_file
from packhouse.errors import NotFound, StageCrashed, StoreFull, StoreUnavailable, Unavailable

REQUEST = "request.json"
LOG = "job.log"
SWEEP_AFTER_S = 24 * 3600
UNUSED_S = 14 * 24 * 3600
"""A file that no run has asked for in so long is fetched or made again, should one ever need it."""


class Cache:
    """root: made with mode 0700. Raises StoreFull, StoreUnavailable: it can not be made there."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.blobs = root / "sha256"
        self.failures = root / "failures"
        try:
            for folder in (root, self.blobs, self.failures, root / "steps"):
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._sweep()
        except OSError as error:
            raise self._trouble(error) from error

    def _sweep(self) -> None:
        """Steps of workers that were killed: nothing runs for a day. And what nobody asked for in a while. Another
        worker may be sweeping, too."""
        for folder, after_s in ((self.root / "steps", SWEEP_AFTER_S), (self.failures, UNUSED_S)):
            for old in folder.iterdir():
                with suppress(FileNotFoundError):
                    if time.time() - old.stat().st_mtime > after_s:
                        shutil.rmtree(old, ignore_errors=True)
        for blob in self.blobs.glob("*/*"):
            with suppress(OSError):  # another worker was first; or it has a second name beside it
                if time.time() - blob.stat().st_mtime > UNUSED_S:
                    blob.unlink()
                    blob.parent.rmdir()

    def path(self, artifact: Artifact) -> Path:
        """Raises NotFound: it was never kept here, or the cache was deleted under a run."""
        path = self._blob(artifact.digest, artifact.name)
        if not self.holds(artifact):
            raise NotFound("PH-0352 is not in the local cache", where=artifact.name, next="run the model again")
        with suppress(FileNotFoundError):
            os.utime(path)  # it is in use
        return path

    def keep(self, path: Path, *, name: str, media_type: str) -> Artifact:
        """Moves a finished file in under its digest, read-only. The file comes from an untrusted child: it must be a
        plain file of its own, and it is hashed here, not there.

        Raises StageCrashed: the child left no such file.
        """
        try:
            found = path.lstat()
        except FileNotFoundError as error:
            raise StageCrashed("PH-0351 left no file behind", where=name) from error
        if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
            raise StageCrashed("PH-0350 left something that is not a plain file", where=name)
        artifact = Artifact(name=name, digest=digest_file(path), size=found.st_size, media_type=media_type)
        self.adopt(path, artifact)
        return artifact

    def adopt(self, path: Path, artifact: Artifact) -> None:
        """Moves a file in whose digest was just checked. The same bytes that are there already stay: a child of
        another run may read that very file, and its kernel lets it read no other one of that name."""
        path.chmod(0o400)
        target = self._blob(artifact.digest, artifact.name)
        target.parent.mkdir(exist_ok=True, mode=0o700)
        try:
            os.link(path, target)
        except FileExistsError:
            if not self.holds(artifact):  # what a power cut left
                path.replace(target)
        path.unlink(missing_ok=True)

    def forget(self, artifact: Artifact) -> None:
        """Of bytes that rotted on this disk."""
        self._blob(artifact.digest, artifact.name).unlink(missing_ok=True)

    def also(self, artifact: Artifact, *, name: str, media_type: str) -> Artifact:
        """The same bytes under another name. Raises NotFound: they are not here."""
        source, target = self.path(artifact), self._blob(artifact.digest, name)
        with suppress(FileExistsError):  # the same bytes, perhaps by another worker, a moment ago
            os.link(source, target)
        return artifact.model_copy(update={"name": name, "media_type": media_type})

    def beside(self, pair: Beside) -> tuple[Path, Path]:
        """The paths of a file and of its data, which lies beside it under its own name, since onnxruntime follows no
        path out of the file's folder.

        One that rotted there, or that a power cut left, is replaced: the file names the digest of its data, so there is
        nothing to choose. Raises NotFound: one is not here."""
        path, data = self.path(pair.file), self.path(pair.data)
        there = path.with_name(pair.data.name)
        with suppress(FileExistsError):
            os.link(data, there)
        if not there.samefile(data) and digest_file(there) != pair.data.digest:
            fresh = there.with_name(f"{there.name}.{os.getpid()}-{threading.get_ident()}")
            os.link(data, fresh)
            fresh.replace(there)
        return path, there

    def holds(self, artifact: Artifact) -> bool:
        """Only what was hashed on its way in is under its digest, and nobody else writes here."""
        path = self._blob(artifact.digest, artifact.name)
        return path.is_file() and path.stat().st_size == artifact.size

    def check_room(self) -> None:
        """Raises StoreFull: the disk is full. A library that fails on a full disk says so in its own words, or in
        none."""
        free = shutil.disk_usage(self.root).free
        if free < _LEAST_FREE_BYTES:
            raise StoreFull("PH-0349 no space is left", where=str(self.root), got=f"{free:,} bytes", next=_NEXT)

    def remember_failure(self, step: Path, job: str, arguments: Mapping[str, Any]) -> None:
        """Keeps what is needed to run a failed step again on the same bytes: `python -m infra.worker.rerun FOLDER`."""
        document = {"job": job, "arguments": arguments}
        text = json.dumps(document, default=lambda artifact: artifact.model_dump(), sort_keys=True, indent=2)
        folder = self.failures / f"{step.name.rpartition('-')[0]}-{digest_bytes(text.encode())[7:19]}"
        folder.mkdir(exist_ok=True, mode=0o700)
        (folder / REQUEST).write_text(text)
        if (step / LOG).is_file():
            (step / LOG).replace(folder / LOG)

    def write(self, data: bytes, *, name: str, media_type: str) -> Artifact:
        with self.step("write") as folder:
            path = folder / name
            path.write_bytes(data)
            return self.keep(path, name=name, media_type=media_type)

    @contextmanager
    def step(self, name: str) -> Iterator[Path]:
        """A private folder for one step, gone after it. Raises StoreFull, StoreUnavailable for a bad disk."""
        try:
            folder = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self.root / "steps"))
            try:
                yield folder
            finally:
                shutil.rmtree(folder, ignore_errors=True)
        except OSError as error:
            if error.errno not in (*_FULL, *_BROKEN):
                raise
            raise self._trouble(error) from error

    def _trouble(self, error: OSError) -> Unavailable:
        kind = StoreFull if error.errno in _FULL else StoreUnavailable
        return kind(os.strerror(error.errno or errno.EIO), where=str(self.root), next=_NEXT)

    def _blob(self, digest: str, name: str) -> Path:
        """Under its own name too: runtimes and messages show a file's name, and the gate checks its ending."""
        return self.blobs / digest.removeprefix("sha256:") / name


_FULL = (errno.ENOSPC, errno.EDQUOT)
_BROKEN = (errno.EIO, errno.EROFS, errno.EACCES, errno.EPERM)
_LEAST_FREE_BYTES = 1 << 20
_NEXT = "make room, or set PACKHOUSE_CACHE to another disk"
