"""Runs a program and says what it took: wall and CPU seconds, and the largest resident set of any of its processes."""

from __future__ import annotations

import resource
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil


@dataclass(frozen=True)
class Ran:
    """cpu_seconds: of the process and of all that it waited for; right only where no other program runs meanwhile."""

    seconds: float
    cpu_seconds: float
    peak_bytes: int
    status: int
    output: str


def run(command: Sequence[str], environment: Mapping[str, str], *, log: Path | None = None) -> Ran:
    """log: where stderr goes, and stdout with it; without one, stdout comes back."""
    before, started = _cpu(), time.perf_counter()
    if log is None:
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    else:
        with log.open("w") as file:
            process = subprocess.Popen(command, env=environment, stdout=file, stderr=subprocess.STDOUT, text=True)
    watch = _Watch(process.pid)
    output, _ = process.communicate()
    seconds = time.perf_counter() - started
    watch.stop()
    return Ran(seconds, _cpu() - before, watch.peak_bytes, process.returncode, output or "")


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


class _Watch:
    """Samples the resident set of a process and all its descendants; keeps the largest of any one."""

    def __init__(self, pid: int) -> None:
        self.peak_bytes = 0
        self._root, self._done = psutil.Process(pid), threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def _watch(self) -> None:
        while not self._done.wait(0.02):
            try:
                for process in [self._root, *self._root.children(recursive=True)]:
                    self.peak_bytes = max(self.peak_bytes, process.memory_info().rss)
            except psutil.NoSuchProcess:
                continue

    def stop(self) -> None:
        self._done.set()
        self._thread.join()
