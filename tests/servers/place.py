"""What every test server needs: a folder that outlives the run, free ports, bounded waiting, an end by process id."""

from __future__ import annotations

import fcntl
import os
import random
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from infra.sandbox.terminate import end
from tests.servers.mode import refuse_if_unwanted

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


class CannotRunError(Exception):
    """This machine cannot run the server; the text says why and what would help."""


@dataclass(frozen=True)
class Endpoint:
    """A running S3 server, and one user of it."""

    url: str
    access_key: str
    secret_key: str
    version: str

    def client(self) -> S3Client:
        import boto3

        keys = {"aws_access_key_id": self.access_key, "aws_secret_access_key": self.secret_key}
        return boto3.client("s3", endpoint_url=self.url, region_name="us-east-1", **keys)


@dataclass(frozen=True)
class Server:
    process: subprocess.Popen[bytes]
    log: Path

    def last_words(self) -> str:
        return " | ".join(self.log.read_text(errors="replace").splitlines()[-4:])


def cache() -> Path:
    """Where installed servers are kept between runs: $PACKHOUSE_TEST_CACHE, else .cache/ of the repository."""
    default = Path(__file__).parents[2] / ".cache"
    folder = Path(os.environ.get("PACKHOUSE_TEST_CACHE") or default).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def installed(name: str, install: Callable[[Path], None]) -> Path:
    """The folder cache()/name, made once."""
    return made_once(cache(), name, install)


def made_once(folder: Path, name: str, make: Callable[[Path], object]) -> Path:
    """folder/name, made by one process while others wait. It gets its name at the end, so that none sees a half."""
    done = folder / name
    with (folder / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            half = folder / f"{name}.half"
            shutil.rmtree(half, ignore_errors=True)
            half.mkdir()
            make(half)
            half.rename(done)
    return done


def must_run(command: Sequence[str | Path], *, why: str, timeout_s: float) -> str:
    """The command's output. Raises CannotRunError with the last lines of it."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s)
    except OSError as error:
        raise CannotRunError(f"{why}: {command[0]} cannot be started ({error.strerror})") from error
    except subprocess.TimeoutExpired as error:
        raise CannotRunError(f"{why}: still running after {timeout_s:.0f} s") from error
    if done.returncode != 0:
        said = " | ".join((done.stdout + done.stderr).strip().splitlines()[-4:])
        raise CannotRunError(f"{why}: exit status {done.returncode}: {said}")
    return done.stdout


def free_ports(count: int) -> list[int]:
    """Different ports that nobody listened on a moment ago, below those that the kernel lends to clients."""
    found: list[int] = []
    for port in random.sample(range(15_000, 30_000), 1000):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                found.append(port)
        if len(found) == count:
            return found
    raise CannotRunError("no free ports on loopback")


def wait_until(ready: Callable[[], bool], *, what: str, server: Server, timeout_s: float) -> None:
    """Raises CannotRunError, with the end of the server's log, when it has died or the time is up."""
    deadline = time.monotonic() + timeout_s
    while not ready():
        if server.process.poll() is not None:
            raise CannotRunError(f"{what} ended with status {server.process.returncode}: {server.last_words()}")
        if time.monotonic() > deadline:
            raise CannotRunError(f"{what} was not ready after {timeout_s:.0f} s: {server.last_words()}")
        time.sleep(0.1)


def until(holds: Callable[[], bool], what: str = "", *, seconds: float, every_s: float = 0.2) -> None:
    """A test's own patience: fails when the time is up."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"not in {seconds:.0f} s: {what}"
        time.sleep(every_s)


@contextmanager
def small_disk(disk: Path, size: str) -> Iterator[Path]:
    """A disk of so many bytes, such as `1m`, at a folder that is made for it."""
    if os.geteuid() != 0:
        pytest.skip("NOT RUN: mounting a small disk needs root")
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", disk]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"NOT RUN: a small disk can not be mounted: {mounted.stderr.strip()}")
    try:
        yield disk
    finally:
        subprocess.run(["umount", disk], check=True)


def answers(url: str) -> bool:
    """Whether an HTTP server speaks at `url`, whatever it says."""
    try:
        with urllib.request.urlopen(url, timeout=2):
            return True
    except urllib.error.HTTPError:
        return True
    except (urllib.error.URLError, OSError):
        return False


@contextmanager
def running(
    command: Sequence[str | Path], *, log: Path, grace_s: float = 5, environment: Mapping[str, str] | None = None
) -> Iterator[Server]:
    """A server, with these variables besides ours. SIGTERM at the end, SIGKILL after `grace_s`; it dies with us."""
    refuse_if_unwanted(" ".join(str(word) for word in command[:4]), mark="server")
    with log.open("ab") as out:
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", *command],
            env=os.environ | (environment or {}),
            stdout=out,
            stderr=out,
            stdin=subprocess.DEVNULL,
        )
    try:
        yield Server(process, log)
    finally:
        end(process, grace_s=grace_s)


@contextmanager
def scratch(prefix: str, under: Path | None = None) -> Iterator[Path]:
    """A folder for one server's data, gone at the end."""
    folder = Path(tempfile.mkdtemp(prefix=f"packhouse-{prefix}-", dir=under))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
