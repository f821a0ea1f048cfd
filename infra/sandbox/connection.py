"""One job's exchange with the fork server: the files it is given, and what comes back through them.

Everything that the child itself sends is foreign: its log is capped, its answer is capped and only stored here.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from packhouse.errors import StoreFull

MAX_ANSWER_BYTES = 4 * 1024**2
MAX_LOG_BYTES = 1024**2
LOG_CAPPED = b"\n[the log is capped here]\n"
TAIL_BYTES = 8192
# select must return now and then: an exception that another thread injects (Prefect cancels so) waits for Python code
TICK_S = 0.2
CANCEL_S = 5.0
CHUNK = 65536
DRAIN = 32  # chunks: more than a pipe holds


@dataclass(frozen=True)
class End:
    """How the child ended, in the server's words.

    status: the exit status, or minus the signal. killed: "time", "memory", "cancelled" or "". seconds, cpu_seconds:
    of the child. peak_bytes: see memory.Watch.
    """

    status: int
    killed: str
    seconds: float
    cpu_seconds: float
    peak_bytes: int


class Exchange:
    """Open while one job runs. On leaving, however that comes, the child is dead."""

    def __init__(self, request: bytes, log: Path) -> None:
        self.answer = b""
        self.overflow = False
        self._logged = 0
        self._passed: list[int] = []
        with contextlib.ExitStack() as stack:
            self._stack = stack
            stack.callback(self._close_passed)
            log.unlink(missing_ok=True)  # an earlier job may have put a link in its place
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            self._log = self._own(os.open(log, flags, 0o644))
            self._channel, theirs = socket.socketpair()
            stack.callback(self._channel.close)
            self._passed.append(theirs.detach())
            self._readers = {self._pipe(): self._take_answer, self._pipe(): self._take_log}
            self._passed.append(_memory_file(request))
            self._stack = stack.pop_all()

    def _own(self, handle: int) -> int:
        self._stack.callback(os.close, handle)
        return handle

    def _pipe(self) -> int:
        """A pipe whose writing end is passed on; returns the reading end, which never blocks us."""
        reading, writing = os.pipe2(os.O_CLOEXEC)
        self._passed.append(writing)
        os.set_blocking(self._own(reading), False)
        return reading

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with self._stack:
            self._close_passed()
            if kind is not None:
                self._cancel()

    def hand_over(self, control: socket.socket) -> bool:
        """Give the job to the server; False where there is none any more."""
        try:
            socket.send_fds(control, [b"job"], self._passed)
        except OSError:
            return False
        self._close_passed()
        return True

    def wait(self, seconds: float) -> End | None:
        """The child's end; None where the server went before it could tell. Raises TimeoutError after `seconds`."""
        deadline = time.monotonic() + seconds
        with selectors.DefaultSelector() as selector:
            for handle in (self._channel.fileno(), *self._readers):
                selector.register(handle, selectors.EVENT_READ)
            while time.monotonic() < deadline:
                for key, _ in selector.select(TICK_S):
                    if key.fd == self._channel.fileno():
                        return self._end()
                    if not self._readers[key.fd](key.fd):
                        selector.unregister(key.fd)
        raise TimeoutError

    def tail(self) -> str:
        """The end of the log, from our own handle: the child may have moved another file to its name."""
        size = os.fstat(self._log).st_size
        return os.pread(self._log, TAIL_BYTES, max(0, size - TAIL_BYTES)).decode(errors="replace")

    def _end(self) -> End | None:
        """Reads what the child had still written, then the server's word."""
        for handle, take in self._readers.items():
            for _ in range(DRAIN):
                take(handle)
        line = self._channel.recv(CHUNK)
        return End(**json.loads(line)) if line else None

    def _take_answer(self, handle: int) -> bool:
        data = _read(handle)
        self.answer += data
        if len(self.answer) > MAX_ANSWER_BYTES:
            self.overflow = True
            self.answer = b""
            self._channel.shutdown(socket.SHUT_WR)  # the server ends the child and tells
            return False
        return bool(data)

    def _take_log(self, handle: int) -> bool:
        data = _read(handle)
        room = MAX_LOG_BYTES - self._logged
        self._logged += len(data)
        if data and room >= 0:
            try:
                os.write(self._log, data[:room] + (LOG_CAPPED if len(data) > room else b""))
            except OSError as error:
                raise StoreFull("PH-0391 the job's log can not be written", got=str(error)) from error
        return bool(data)

    def _cancel(self) -> None:
        """Closing our half makes the server kill the child; its word or its hang-up says that this is done."""
        try:
            self._channel.shutdown(socket.SHUT_WR)
            self._channel.settimeout(CANCEL_S)
            self._channel.recv(CHUNK)
        except OSError:
            return  # the server has gone, and with it the child

    def _close_passed(self) -> None:
        while self._passed:
            os.close(self._passed.pop())


def _read(handle: int) -> bytes:
    """What is there now; nothing at the end of the pipe and where the pipe is empty."""
    try:
        return os.read(handle, CHUNK)
    except BlockingIOError:
        return b""


def _memory_file(data: bytes) -> int:
    handle = os.memfd_create("request", os.MFD_CLOEXEC)
    with open(handle, "wb", closefd=False) as file:
        file.write(data)
    os.lseek(handle, 0, os.SEEK_SET)
    return handle
