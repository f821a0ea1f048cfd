"""What a worker process works with: its settings, its local cache, the store, and the sandbox for all that computes."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from infra.sandbox.client import ROOT, Answer, Limits, Sandbox
from infra.settings import Settings, settings
from infra.worker.cache import Cache
from packhouse.architectures.registry import GROUP
from packhouse.artifact import Artifact, Beside
from packhouse.digest import digest_bytes
from packhouse.errors import Refused, Stopping
from packhouse.formats.installed import GROUP as FORMATS
from packhouse.store import Capabilities, Retrying, Store, guard, open_store, probe
from packhouse.trust.signatures import Trusted

PROBE_AGAIN_S = 24 * 3600


@dataclass(frozen=True)
class File:
    """A file that a job is to leave behind. optional: it may also not."""

    name: str
    media_type: str
    optional: bool = False


class WorkerContext:
    """One for each process. Thread-safe."""

    def __init__(self, settings: Settings, sandbox: Sandbox | None = None) -> None:
        self.settings = settings
        self.cache = Cache(settings.cache_folder)
        self.sandbox = sandbox or Sandbox(
            preload=architecture_modules(), require=settings.require, packages=shown_packages()
        )
        self._code = tuple(added_code())
        self.store: Store = _careful(settings.store_url, self.cache)
        self._closed = False
        self._slots = threading.BoundedSemaphore(settings.children)

    @cached_property
    def known(self) -> Trusted:
        """Whose signatures this worker knows, read once. Raises as SigningSettings.known."""
        return self.settings.known()

    @contextmanager
    def turn(self, name: str) -> Iterator[Path]:
        """A folder for one step that computes, once it is its turn among all that compute here."""
        with self._slots, self.cache.step(name) as folder:
            if self._closed:
                raise Stopping("PH-0534 the run was ended", where=name)
            yield folder

    def run(self, job: str, arguments: Mapping[str, Any], *files: File) -> tuple[Answer, tuple[Artifact, ...]]:
        """Runs `job` in a child and takes over the files that it was to leave behind, hashed here.

        Artifacts among the arguments, also inside a dictionary, become paths of the local cache.
        Raises what Sandbox.run raises, StageCrashed where a file is missing, and Stopping after `close`.
        """
        name = job.partition(":")[0].rpartition(".")[2]
        with self._slots, self.cache.step(name) as folder:
            if self._closed:  # asked once it is our turn: a job that waited must not start a new sandbox
                raise Stopping("PH-0534 the run was ended", where=job)
            try:
                answer = self._child(job, arguments, folder)
                kept = tuple(
                    self.cache.keep(folder / file.name, name=file.name, media_type=file.media_type)
                    for file in files
                    if not file.optional or (folder / file.name).exists()
                )
            except Refused:
                self.cache.check_room()
                self.cache.remember_failure(folder, job, arguments)
                raise
        return answer, kept

    def _child(self, job: str, arguments: Mapping[str, Any], folder: Path) -> Answer:
        """The child can read the files that it is given, and no other model's."""
        paths: list[Path] = []
        plain = {name: self._plain(value, paths) for name, value in arguments.items()}
        limits = Limits(wall_s=self.settings.child_seconds, memory_bytes=self.settings.child_memory)
        return self.sandbox.run(job, plain, workdir=folder, limits=limits, readable=(*paths, *self._code))

    def _plain(self, value: Any, paths: list[Path]) -> Any:
        """The argument as JSON: artifacts become paths, which are added to `paths`."""
        if isinstance(value, Artifact):
            paths.append(self.cache.path(value))
            return str(paths[-1])
        if isinstance(value, Beside):
            paths += self.cache.beside(value)
            return str(paths[-2])
        if isinstance(value, dict):
            return {key: self._plain(part, paths) for key, part in value.items()}
        return value

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Warms the sandbox. A run that is cancelled takes its children with it at once, in every thread."""
        self.sandbox.start()
        try:
            yield
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._closed = True
        self.sandbox.close()


def _careful(url: str, cache: Cache) -> Store:
    """The store with retries, and with what the probe found it to lack routed around or refused.

    The probe writes; so a worker asks a store once a day."""
    adapter = open_store(url)
    note = cache.root / f"store-{digest_bytes(adapter.url.encode())[7:19]}.json"
    found = _noted(note)
    if found is None:
        found = probe(adapter)
        with cache.step("probe") as folder:
            (folder / note.name).write_text(json.dumps(vars(found)))
            (folder / note.name).replace(note)
    return Retrying(guard(adapter, found))


def _noted(note: Path) -> Capabilities | None:
    """What an earlier probe found; None where there was none, it is a day old, or another version wrote it."""
    try:
        if time.time() - note.stat().st_mtime > PROBE_AGAIN_S:
            return None
        return Capabilities(**json.loads(note.read_text()))
    except (FileNotFoundError, ValueError, TypeError):
        return None


_current: WorkerContext | None = None
_lock = threading.Lock()


def worker_context() -> WorkerContext:
    """This process's context, made from the settings when it is first needed."""
    global _current
    with _lock:
        if _current is None:
            _current = WorkerContext(settings())
        return _current


def use(shop: WorkerContext | None) -> None:
    """Makes `shop` this process's context; None: a new one is made from the settings at the next need."""
    global _current
    with _lock:
        _current = shop


def architecture_modules() -> list[str]:
    """The modules that register architectures: imported once, by the fork server, and not by every job."""
    return sorted({point.module for point in importlib.metadata.entry_points(group=GROUP)})


def added_code() -> list[Path]:
    """Where the packages that register architectures and formats lie, and what says so of each: an editable install is
    outside the interpreter's folders."""
    points = _points()
    homes = sorted({Path(str(point.dist.locate_file(""))).resolve() for point in points if point.dist})
    return added_packages() + [said for home in homes for said in sorted(home.glob("*.egg-info"))]


def _points() -> list[importlib.metadata.EntryPoint]:
    return [point for group in (GROUP, FORMATS) for point in importlib.metadata.entry_points(group=group)]


def added_packages() -> list[Path]:
    """The top-level packages that register architectures or formats: folders, and files of single modules."""
    points = _points()
    specs = [importlib.util.find_spec(package) for package in sorted({point.module.split(".")[0] for point in points})]
    return [Path(place) for spec in specs if spec for place in spec.submodule_search_locations or [str(spec.origin)]]


def shown_packages() -> list[Path]:
    """Those of them that only PYTHONPATH shows, such as the demo's: the sandbox must be told, since it has its own."""
    shown = {Path(entry).resolve() for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry}
    return [path for path in added_packages() if path.resolve().parent in shown - {ROOT}]
