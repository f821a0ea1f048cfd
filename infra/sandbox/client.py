"""The sandbox: each job (an export, a quantisation, a look into foreign weights) runs in its own locked-down child.

A child that crashes, hangs or eats memory is an error with a reason and never the end of the worker. Children are
forked from one warm server (forkserver.py), so that a tiny export costs about one CPU second and not six. Nothing is
pickled: requests and answers are JSON, and an answer is parsed as foreign data, under a cap.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import packhouse
from infra.sandbox.connection import Exchange
from infra.sandbox.lockdown import Measure
from infra.sandbox.request import Limits, Request
from infra.sandbox.result import Answer, outcome
from infra.sandbox.server import KEEP_NETWORK, NO_EXPORTER, UNSAFE_PRELOAD
from packhouse.errors import Unavailable

__all__ = ["Answer", "Limits", "Measure", "Sandbox"]

ROOT = Path(__file__).resolve().parent.parent.parent
PACKHOUSE = Path(packhouse.__file__).resolve().parent
"""Beside the worker's code in a clone; around it where packhouse was installed from a wheel."""
JOB = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")
PASSED_ON = ("PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "LD_LIBRARY_PATH")
FIXED = {
    "PYTHONHASHSEED": "0",  # the bytes of a TorchScript archive depend on the order of sets
    "PYTHONPATH": str(ROOT),
    "HOME": "/nonexistent",
    "OMP_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",  # threads that wait for each other by spinning stall where others need the processor
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "ORT_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TQDM_DISABLE": "1",
}
NO_GPU = {"CUDA_VISIBLE_DEVICES": ""}
# seconds beyond a job's own limit after which the server itself is given up: its warm-up, and a loaded machine
SERVER_GRACE_S = 180.0
CLOSE_S = 5.0


class Sandbox:
    """Runs jobs in children of one warm server. Thread-safe: many threads may call `run` at the same time.

    The server starts at the first call (or at `start`) and again where it died. allowed: prefixes of the modules whose
    functions may be named as jobs. readable: files and folders that every job may read, such as where an editable
    install of a model package lies. require: measures without which no job starts (Unavailable). omit: measures
    to leave out, for hosts whose libraries can not live with one. cuda: show the GPU to the jobs; then nothing may be
    preloaded that asks torch for a GPU, and exports are slower. preload: modules that the server imports once for all
    jobs; they must be trusted, since it is not confined. One that leaves a thread running costs the first call
    (Unavailable); from then on nothing is preloaded. packages: folders of packages that jobs import, and that lie
    outside of what is installed.
    """

    def __init__(
        self,
        *,
        allowed: Collection[str] = ("tasks.",),
        readable: Iterable[Path] = (),
        require: Iterable[Measure] = (),
        omit: Iterable[Measure] = (),
        cuda: bool = False,
        preload: Iterable[str] = (),
        packages: Iterable[Path] = (),
    ) -> None:
        self._allowed = tuple(allowed)
        self._readable = tuple(readable)
        self._require, self._omit = tuple(require), tuple(omit)
        self._cuda = cuda
        self._preload = tuple(preload)
        self._packages = tuple(map(str, packages))
        self._lock = threading.Lock()
        self._server: _Server | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def start(self) -> None:
        """Begin to warm the server, and return at once; the first `run` then waits only for what is left of it."""
        self._running()

    def run(
        self,
        job: str,
        arguments: Mapping[str, Any],
        *,
        workdir: Path,
        limits: Limits = Limits(),  # noqa: B008 - frozen
        readable: Iterable[Path] = (),
    ) -> Answer:
        """Call `module:function(**arguments)` in a child of its own and wait for its answer.

        arguments and the answer are JSON. workdir: an existing folder for this call alone, the only place the job can
        write to, and its current folder; `job.log` in it holds what was printed. readable: what the job may read
        besides it, its own code and the system's libraries.

        Raises what the job raised where that is a PackhouseError; LimitExceeded (time, memory, file or answer size);
        StageCrashed (another exception, a signal, no answer); Unavailable (the server died, the host lacks a required
        measure, the child was killed from outside). When this returns or raises, also by an interrupt, the child and
        all it started are dead. A call whose server died is not repeated here: the job may have written.
        """
        workdir = workdir.resolve(strict=True)
        request = self._request(job, arguments, workdir, limits, readable)
        log = workdir / "job.log"
        with Exchange(request.to_json(), log) as exchange:
            server = self._running()
            if not exchange.hand_over(server.control):
                raise self._dead(server, "before the job", job)
            try:
                end = exchange.wait(limits.wall_s + SERVER_GRACE_S)
            except TimeoutError:
                server.stop(0)
                raise Unavailable("PH-0454 the fork server did not answer and was ended", where=job) from None
            if end is None:
                raise self._dead(server, "while the job ran", job)
            return outcome(request, end, exchange, log)

    def close(self) -> None:
        """End the server and every running job, whose callers get Unavailable. A later `run` starts a new server."""
        with self._lock:
            server, self._server = self._server, None
        if server:
            server.stop(CLOSE_S)

    def _dead(self, server: _Server, when: str, job: str) -> Unavailable:
        """Its sockets close a moment before it is gone; the next call must not meet it in between."""
        if server.stopped:
            return Unavailable("PH-0409 the sandbox was closed while the job ran", where=job)
        words = server.last_words()
        server.stop(CLOSE_S)
        return Unavailable(f"PH-0453 the fork server died {when}", where=job, got=words)

    def _running(self) -> _Server:
        with self._lock:
            if self._server is None or not self._server.alive():
                if self._server:
                    self._server.stop(0)
                    self._preload = () if self._server.unsafe_preload() else self._preload
                options = [KEEP_NETWORK] if Measure.NO_NETWORK in self._omit else []
                options += [NO_EXPORTER] if self._cuda else []
                self._server = _Server(_environment(self._cuda, self._packages), [*options, *self._preload])
            return self._server

    def _request(
        self, job: str, arguments: Mapping[str, Any], workdir: Path, limits: Limits, readable: Iterable[Path]
    ) -> Request:
        if not JOB.fullmatch(job) or not job.startswith(self._allowed):
            raise ValueError(f"{job} is not a job; jobs are functions of modules under {', '.join(self._allowed)}")
        packages = {"infra", job.partition(".")[0].partition(":")[0]}
        return Request(
            job=job,
            arguments=dict(arguments),
            workdir=str(workdir),
            limits=limits,
            readable=tuple(str(path.resolve()) for path in (*self._readable, *readable)),
            code=(*(str(ROOT / package) for package in sorted(packages)), str(PACKHOUSE), *self._packages),
            require=self._require,
            omit=self._omit,
            cuda=self._cuda,
        )


class _Server:
    """The fork server's process. control: where jobs are handed over; closing it ends the server and its children."""

    def __init__(self, environment: dict[str, str], options: Sequence[str]) -> None:
        self._owner = os.getpid()
        self.stopped = False
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the server
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "infra.sandbox.server", str(theirs.fileno()), *options],
                env=environment,
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=self._log,
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # Ctrl-C is the worker's to handle
            )

    def alive(self) -> bool:
        """False also in a forked copy of the worker: the server answers to the original."""
        return self._owner == os.getpid() and self._process.poll() is None

    def unsafe_preload(self) -> bool:
        return self._process.poll() == UNSAFE_PRELOAD

    def last_words(self) -> str:
        if self._log.closed:
            return ""
        lines = os.pread(self._log.fileno(), 65536, 0).decode(errors="replace").splitlines()
        return next((line for line in reversed(lines) if line.strip()), "")

    def stop(self, seconds: float) -> None:
        """End it, by force after `seconds`. Its children die with it."""
        self.stopped = True
        self.control.close()
        if self._owner != os.getpid():
            return
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()


def _environment(cuda: bool, packages: Iterable[str]) -> dict[str, str]:
    """By allow-list: no key, token or address of the worker's reaches a job."""
    passed = (*PASSED_ON, "CUDA_VISIBLE_DEVICES") if cuda else PASSED_ON
    # asked so, torch counts GPUs without starting the driver, which no process may do before it forks
    hidden = {"PYTORCH_NVML_BASED_CUDA_CHECK": "1"} if cuda else NO_GPU
    path = os.pathsep.join(dict.fromkeys([str(ROOT), *(str(Path(package).parent) for package in packages)]))
    kept = {name: os.environ[name] for name in passed if name in os.environ}
    return kept | FIXED | {"PYTHONPATH": path} | hidden
