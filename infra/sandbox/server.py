"""The fork server: one warm, single-threaded process from which each job is forked, watched and ended.

    python -P -m infra.sandbox.server <control socket> [--keep-network] [--no-exporter] [module to preload ...]

The sandbox (the parent) sends one message a job over the control socket, an AF_UNIX SOCK_SEQPACKET, with four open
files: the job's channel, the answer pipe, the log pipe and a memory file that holds the request as JSON. The server
never reads what a job writes. It tells on the channel, in one line of JSON, how the child ended. Where the channel or
the control socket closes, its children die: so the parent cancels a job by closing the channel, and a parent killed
with -9 leaves nothing behind. Children of a server that was killed die by PR_SET_PDEATHSIG.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import selectors
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from infra.sandbox import child, memory
from infra.sandbox import preload as warm
from infra.sandbox.lockdown import Measure, cut_network
from infra.sandbox.request import Request

TICK_S = 0.1
IDLE_TICK_S = 1.0
STRAYS_S = 1.0
LINGERS_S = 1.0
PR_SET_CHILD_SUBREAPER = 36
KEEP_NETWORK = "--keep-network"
NO_EXPORTER = "--no-exporter"
"""Exporters ask torch for a GPU, and a driver that was asked once can not be used after a fork."""

UNSAFE_PRELOAD = 77
"""Exit status: a preloaded module left a thread running, which a fork would not have."""


@dataclass
class Job:
    """A running child. killed: why we killed it, empty where we did not."""

    pid: int
    pidfd: int
    channel: socket.socket
    request: Request
    started: float
    watch: memory.Watch
    killed: str = ""
    listening: bool = True


@dataclass
class Server:
    control: socket.socket
    measures: frozenset[Measure]
    parent: int
    exports: bool
    jobs: dict[int, Job] = field(default_factory=dict)
    selector: selectors.BaseSelector = field(default_factory=selectors.DefaultSelector)

    def serve(self) -> None:
        """Until the parent is gone; then every child is dead."""
        self.selector.register(self.control, selectors.EVENT_READ, self._accept)
        wait, warmed = 0.0, not self.exports
        while os.getppid() == self.parent:
            for key, _ in self.selector.select(wait):
                if not key.data():
                    return self._end_all()
            self._police()
            if not warmed:  # a first job that waited, such as a look at weights, runs beside this
                with _leaving_with(self.control, self._end_all):
                    warm.exporter()
                warmed = True
                _alone()
            wait = TICK_S if self.jobs else IDLE_TICK_S
        return self._end_all()

    def _accept(self) -> bool:
        """Start the next job; False where the parent has gone."""
        message, files, _, _ = socket.recv_fds(self.control, 16, 4)
        if not message:
            return False
        channel, answer, log, text = files
        with os.fdopen(text, "rb") as file:
            request = Request.from_json(file.read())
        self._fork(request, socket.socket(fileno=channel), answer, log)
        os.close(answer)
        os.close(log)
        return True

    def _fork(self, request: Request, channel: socket.socket, answer: int, log: int) -> None:
        server = os.getpid()
        try:
            pid = os.fork()
        except OSError as error:  # no memory or no process number left: this job's misfortune, not its neighbours'
            print(f"{request.job}: {error}", file=sys.stderr)  # noqa: T201 - the server's log
            end = {"status": 1, "killed": "fork", "seconds": 0.0, "cpu_seconds": 0.0, "peak_bytes": 0}
            channel.send(json.dumps(end).encode() + b"\n")
            return channel.close()
        if pid == 0:
            child.live(request, server=server, answer=answer, log=log, given=self.measures)
        job = Job(pid, os.pidfd_open(pid), channel, request, time.monotonic(), memory.Watch(pid))
        self.jobs[pid] = job
        self.selector.register(job.pidfd, selectors.EVENT_READ, lambda: self._ended(job))
        self.selector.register(channel, selectors.EVENT_READ, lambda: self._kill(job, "cancelled"))
        return None

    def _police(self) -> None:
        for job in list(self.jobs.values()):
            limits = job.request.limits
            if time.monotonic() - job.started > limits.wall_s:
                self._kill(job, "time")
            elif job.watch.look() > limits.memory_bytes:
                self._kill(job, "memory")
        self._kill_strays()

    def _kill(self, job: Job, why: str) -> bool:
        """End the child and all it started. Its end is told when the kernel reports it."""
        if self.jobs.get(job.pid) is not job:
            return True  # it ended at the same moment, and its number may already be another's
        job.killed = job.killed or why
        self._stop_listening(job)
        for pid in (job.pid, *memory.descendants(job.pid)):
            _signal(os.kill, pid)
        _signal(os.killpg, job.pid)
        return True

    def _stop_listening(self, job: Job) -> None:
        if job.listening:
            self.selector.unregister(job.channel)
            job.listening = False

    def _ended(self, job: Job) -> bool:
        _signal(os.killpg, job.pid)  # before the child is reaped, while its number can not be another's
        _, status, usage = os.wait4(job.pid, 0)
        del self.jobs[job.pid]
        self.selector.unregister(job.pidfd)
        self._stop_listening(job)
        os.close(job.pidfd)
        self._kill_strays()
        self._tell(job, os.waitstatus_to_exitcode(status), usage.ru_utime + usage.ru_stime)
        return True

    def _tell(self, job: Job, status: int, cpu_seconds: float) -> None:
        end = {
            "status": status,
            "killed": job.killed,
            "seconds": round(time.monotonic() - job.started, 3),
            "cpu_seconds": round(cpu_seconds, 3),
            "peak_bytes": job.watch.peak,
        }
        try:
            job.channel.send(json.dumps(end).encode() + b"\n")
        except (BrokenPipeError, ConnectionResetError):
            print(f"{job.request.job}: nobody waits for its end", file=sys.stderr)  # noqa: T201 - the server's log
        job.channel.close()

    def _kill_strays(self) -> None:
        """Processes that a dead child left behind: the kernel gave them to us, and they are no job of ours."""
        deadline = time.monotonic() + STRAYS_S
        while (strays := set(memory.children(os.getpid())) - self.jobs.keys()) and time.monotonic() < deadline:
            for pid in strays:
                _signal(os.kill, pid)
                os.waitpid(pid, os.WNOHANG)  # one that is not dead yet is met again
            time.sleep(0.001)

    def _end_all(self) -> None:
        for job in list(self.jobs.values()):
            self._kill(job, "cancelled")
            self._ended(job)


def _alone() -> bool:
    """A fork copies only the thread that forks, and leaves the locks of others held.

    On a loaded machine the kernel still lists a thread for a moment after it was joined.
    """
    until = time.monotonic() + LINGERS_S
    while (threads := warm.threads()) != 1 and time.monotonic() < until:
        time.sleep(0.01)
    if threads != 1:
        print(f"{threads} threads are running: a fork is not safe", file=sys.stderr)  # noqa: T201 - the server's log
    return threads == 1


def _signal(send: Callable[[int, int], None], pid: int) -> None:
    try:
        send(pid, signal.SIGKILL)
    except ProcessLookupError:
        return  # already gone, which is what we want


def main(control: socket.socket, *, network: bool, exports: bool, preload: tuple[str, ...]) -> None:
    """Warm up, then serve. Exits at once where the parent goes during the warm-up."""
    parent = os.getppid()
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    measures = frozenset({Measure.NO_NETWORK} if not network and cut_network() else ())
    with _leaving_with(control):
        warm.imports(preload)
    if not _alone() and preload:
        sys.exit(UNSAFE_PRELOAD)
    Server(control, measures, parent, exports).serve()


@contextmanager
def _leaving_with(control: socket.socket, last: Callable[[], None] = lambda: None) -> Iterator[None]:
    """A thread that ends this process when the parent does, after `last`; gone again at the end, because forks need
    one thread."""
    done = threading.Event()

    def watch() -> None:
        poll = select.poll()
        poll.register(control, 0)  # asks for nothing, still reports the hang-up
        while not done.is_set():
            if poll.poll(TICK_S * 1000):
                last()
                os._exit(0)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    yield
    done.set()
    thread.join()


if __name__ == "__main__":
    main(
        socket.socket(fileno=int(sys.argv[1])),
        network=KEEP_NETWORK in sys.argv,
        exports=NO_EXPORTER not in sys.argv,
        preload=tuple(option for option in sys.argv[2:] if option not in (KEEP_NETWORK, NO_EXPORTER)),
    )
