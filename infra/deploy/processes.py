"""A small table of long-running programs: started in order, known by process id and start time, stopped newest first.

What a program started, and what outlives it, is found by a mark in its environment. So nothing is left behind after a
crash, and nothing is ended that somebody else started.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from infra.deploy.listeners import listens
from packhouse.errors import Unavailable

MARK = "PACKHOUSE_UP_FOLDER"
POLL_S = 0.2
SHOWN_LINES = 5


@dataclass(frozen=True)
class Service:
    """port: where it listens, 0 for nowhere. ready: whether it does its work by now. ready_s: how long that may take.
    stop: the signal that ends it in peace; stop_s: how long that may take, before it is killed."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    ready: Callable[[], bool]
    port: int = 0
    ready_s: float = 180.0
    stop: signal.Signals = signal.SIGTERM
    stop_s: float = 20.0

    def digest(self) -> str:
        """Of everything that it runs with: what changed is started again."""
        told = json.dumps([list(self.command), dict(self.environment)], sort_keys=True)
        return hashlib.sha256(told.encode()).hexdigest()


@dataclass(frozen=True)
class Entry:
    """A program that was started. began: its start time in clock ticks since boot, so that a process id that was given
    to another program is not taken for it."""

    name: str
    pid: int
    began: int
    digest: str
    stop: int
    stop_s: float

    def alive(self) -> bool:
        return self.began >= 0 and _began(self.pid) == self.began


@dataclass(frozen=True)
class Table:
    """The programs of one folder: `<number>-<name>.json` for each in the order of starting, `<name>.log` beside it."""

    folder: Path
    wait: Callable[[float], None] = field(default=time.sleep)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """One `up` or `down` at a time. Raises Unavailable: another one is at work."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise Unavailable("PH-0377 another up or down is at work", where=str(self.folder)) from error
            yield

    def log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def entries(self) -> list[Entry]:
        """In the order of starting."""
        return [Entry(**json.loads(path.read_text())) for path in sorted(self.folder.glob("[0-9]*-*.json"))]

    def ensure(self, service: Service) -> str:
        """Starts it where it does not run as it should, and waits until it is ready: `started` or `runs`.
        Raises Unavailable, with its last words: it ended, or is not ready in time."""
        there = next((entry for entry in self.entries() if entry.name == service.name), None)
        runs = there is not None and there.alive() and there.digest == service.digest()
        if there and not runs:
            self._stop(there)
        if not there or not runs:
            there = self._start(service)
        deadline = time.monotonic() + service.ready_s
        while not (service.ready() and (not service.port or listens(there.pid, service.port))):
            if not there.alive():
                raise self._failed(service, "ended before it was ready")
            if time.monotonic() > deadline:
                raise self._failed(service, f"is not ready after {service.ready_s:.0f} s")
            self.wait(POLL_S)
        return "runs" if runs else "started"

    def stop_all(self) -> list[str]:
        """Newest first, and then whatever they left behind. The names of those that ran."""
        ran = [entry.name for entry in reversed(self.entries()) if self._stop(entry)]
        self._sweep()
        return ran

    def _start(self, service: Service) -> Entry:
        number = max((int(path.name.partition("-")[0]) for path in self.folder.glob("[0-9]*-*.json")), default=0) + 1
        log = os.open(self.log(service.name), os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            process = subprocess.Popen(
                service.command,
                env={**service.environment, MARK: str(self.folder)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        finally:
            os.close(log)
        began = _began(process.pid)
        entry = Entry(service.name, process.pid, began, service.digest(), service.stop, service.stop_s)
        (self.folder / f"{number:03}-{service.name}.json").write_text(json.dumps(vars(entry)))
        return entry

    def _stop(self, entry: Entry) -> bool:
        """Whether it ran. Its entry is gone only when it is."""
        ran = entry.alive()
        if ran:
            os.kill(entry.pid, entry.stop)
            self._wait(entry.alive, entry.stop_s)
        if entry.alive():
            os.kill(entry.pid, signal.SIGKILL)
            self._wait(entry.alive, entry.stop_s)
        for path in self.folder.glob(f"[0-9]*-{entry.name}.json"):
            path.unlink()
        return ran

    def _sweep(self) -> None:
        """Flow runs of a worker that was killed, for example."""
        for pid in marked(self.folder):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue  # it ended by itself

    def _wait(self, alive: Callable[[], bool], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while alive() and time.monotonic() < deadline:
            self.wait(POLL_S)

    def _failed(self, service: Service, what: str) -> Unavailable:
        log = self.log(service.name)
        lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
        last = " | ".join(lines[-SHOWN_LINES:])[-600:]
        return Unavailable(what, where=service.name, got=last or "no words", next=f"read {log}")


def marked(folder: Path) -> list[int]:
    """The processes that were started from this folder's table, and theirs."""
    wanted = f"{MARK}={folder}".encode()
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            environment = path.read_bytes()
        except OSError:  # it ended, or belongs to somebody else
            continue
        if wanted in environment.split(b"\0") and int(path.parent.name) != os.getpid():
            found.append(int(path.parent.name))
    return found


def _began(pid: int) -> int:
    """Start time of the process; -1 where there is none, or only its exit status is left."""
    try:
        fields: list[Any] = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return -1
    state, ticks = fields[0], fields[19]
    return -1 if state in ("Z", "X") else int(ticks)
