"""A Prefect server of a run's own, for a worker that is told of none: on loopback, and gone when the run ends.

The database is the run's own too, so that two runs at once do not wait for each other's locks and nothing grows with
the years. What a run leaves behind is its release; an operator who wants a history starts a server of his own and
sets PREFECT_API_URL. Making a database takes Prefect seven seconds, so an empty one is kept and copied.

    python -P -m infra.worker.local_prefect <socket> <worker's process id>      is the server
"""

from __future__ import annotations

import ctypes
import fcntl
import http.client
import importlib.metadata
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from infra.sandbox.terminate import end
from packhouse.errors import StoreFull, Unavailable

ROOT = Path(__file__).resolve().parent.parent.parent
NEEDED_BYTES = 32 * 1024 * 1024
"""A new database takes 6 MB, and a run adds 13 kB for each of its tasks."""
START_TIMEOUT_S = 120.0
STOP_S = 5.0
POLL_S = 0.05
PR_SET_PDEATHSIG = 1
DATABASE, LOCK, LOG = "prefect.db", "lock", "server.log"
RUN = "run-"
FIXED = {
    "PREFECT_UI_ENABLED": "0",
    "PREFECT_API_BLOCKS_REGISTER_ON_START": "false",  # two seconds, and nothing here has blocks
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT__SERVER_EPHEMERAL": "1",
    "PREFECT__SERVER_FINAL": "1",
}
IN_BATCHES = {
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "200",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_READ_BATCH_SIZE": "100",
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_BATCH_SIZE": "200",
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_READ_BATCH_SIZE": "100",
}
"""How any Prefect server should write down what it is told: a quarter of the CPU time of the defaults."""

PATIENT = {"PREFECT_CLIENT_MAX_RETRIES": "10"}
"""For a worker: a server that restarts, or is away for some minutes, is waited for, and not the end of a run."""

NOT_PASSED_ON = ("PREFECT_API_URL", "PREFECT_API_DATABASE_", "PREFECT_SERVER_DATABASE_", "PREFECT_PROFILE")


class PrefectApi:
    """The server of one run. folder: exists; its database is there, in a folder of the run's own, and its words stay
    there if it does not start. url: known, and kept free, before anything starts."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._template = folder / f"empty-{importlib.metadata.version('prefect')}.db"
        self._socket = socket.socket()
        self._socket.bind(("127.0.0.1", 0))
        self._port = int(self._socket.getsockname()[1])
        self.url = f"http://127.0.0.1:{self._port}/api"
        self._run: Path | None = None
        self._lock = ExitStack()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Begins to start the server, and returns at once. Call it in the main thread: the server dies with the thread
        that started it. Raises StoreFull: there is no room for its database."""
        free = shutil.disk_usage(self._folder).free
        if free < NEEDED_BYTES:
            got, want = f"{free:,} bytes", f"{NEEDED_BYTES:,} for Prefect's database"
            next = "make room, or set PACKHOUSE_HOME to another disk"
            raise StoreFull("PH-0349 no space is left", where=str(self._folder), got=got, want=want, next=next)
        with _locked(self._folder):
            self._sweep()
            self._run = Path(tempfile.mkdtemp(prefix=RUN, dir=self._folder))
            self._lock.enter_context(_locked(self._run))
        if self._template.is_file():
            shutil.copyfile(self._template, self._run / DATABASE)
        with (self._run / LOG).open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", __name__, str(self._socket.fileno()), str(os.getpid())],
                env=_environment(self._run),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[self._socket.fileno()],
                start_new_session=True,  # Ctrl-C is the worker's to handle
            )

    def wait(self) -> None:
        """Until it answers. Raises Unavailable, which names the file with its words: it did not start."""
        assert self._process, "start() comes first"
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise self._failed()
            time.sleep(POLL_S)
        self._socket.close()  # a server that dies from here on refuses connections, and does not keep them waiting
        if not self._template.exists():
            self._keep_empty()

    def close(self) -> None:
        """Ends the server, by force after STOP_S, and takes its database away."""
        self._socket.close()
        if self._process:
            end(self._process, grace_s=STOP_S)
            self._process = None
        if self._run:
            shutil.rmtree(self._run, ignore_errors=True)
            self._lock.close()
            self._run = None

    def _answers(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=POLL_S * 100)
        try:
            connection.request("GET", "/api/health")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def _failed(self) -> Unavailable:
        """A template that no server starts with is thrown away, and so is never in the way twice."""
        assert self._run
        assert self._process
        status = self._process.poll()
        said = self._folder / LOG
        (self._run / LOG).replace(said)
        self._template.unlink(missing_ok=True)
        lines = [line for line in said.read_text(errors="replace").splitlines() if line.strip()]
        self.close()
        got = lines[-1][:200] if lines else "no words"
        when = f"and ended with status {status}" if status is not None else f"in {START_TIMEOUT_S:.0f} s"
        return Unavailable(
            f"PH-0410 Prefect's server did not start {when}", where=self.url, got=got, next=f"read {said}"
        )

    def _keep_empty(self) -> None:
        """A copy of the database as it is now: made and empty, for the runs to come."""
        assert self._run
        copy = self._run / "empty.db"
        source, target = sqlite3.connect(self._run / DATABASE), sqlite3.connect(copy)
        try:
            source.backup(target)
        finally:
            target.close()
            source.close()
        copy.replace(self._template)

    def _sweep(self) -> None:
        """Folders of runs whose worker was killed: nobody holds their lock any more."""
        for run in self._folder.glob(f"{RUN}*"):
            try:
                with _locked(run, wait=False):
                    shutil.rmtree(run, ignore_errors=True)
            except (BlockingIOError, FileNotFoundError):
                continue  # under way, or just gone


@contextmanager
def _locked(folder: Path, *, wait: bool = True) -> Iterator[None]:
    """Holds the folder's lock, which the kernel lets go when its process dies. Raises BlockingIOError: another has
    it."""
    with (folder / LOCK).open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield


def _environment(run: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(NOT_PASSED_ON)}
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    return kept | FIXED | {"PREFECT_HOME": str(run), "PYTHONPATH": path}


def _serve(listening: socket.socket, worker: int) -> None:
    """Be the server, and die with the worker, whatever ends it."""
    import uvicorn

    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != worker:
        sys.exit(1)  # it died before the line above
    config = uvicorn.Config("prefect.server.api.server:create_app", factory=True, log_level="error", lifespan="on")
    uvicorn.Server(config).run(sockets=[listening])


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2]))
