"""The canary: the server of a release, started as its user starts it, answers the golden cases over its protocol.

With an engine it is the pushed image, by digest, as a container; without one the same server on the same files in a
child that is locked down as such a container is. Either way it has no network, writes nothing and may nothing.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker.errors
import requests
import safetensors.numpy

from infra.engine import connect
from infra.registry.reference import Reference
from infra.serving.ask import READY_S, Server
from packhouse.errors import EngineUnavailable, ImageInvalid, ReleaseInvalid, Unavailable, squeezed
from packhouse.judge import Array, Case
from packhouse.manifest import Manifest
from packhouse.spec import Format

ROOT = Path(__file__).resolve().parent.parent
USER = "10001:10001"
MEMORY = "2g"
PROCESSES = 256
STOP_S = 10
PASSED_ON = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH")


@dataclass(frozen=True)
class Answered:
    """What the server said to each case, and what it was held to."""

    answers: list[dict[str, Array]]
    measures: tuple[str, ...]


def in_child(
    files: Mapping[str, Path], environment: Mapping[str, str], manifest: Manifest, cases: Sequence[Case]
) -> Answered:
    """files: name -> the file, hashed already; they are linked or copied into a folder as the image has them.

    Raises ReleaseInvalid: the server refuses the release or does not answer. Unavailable: it does not get ready."""
    with tempfile.TemporaryDirectory(prefix="packhouse-canary-") as name:
        folder, workdir = Path(name) / "models", Path(name) / "work"
        folder.mkdir()
        workdir.mkdir()
        for file, path in files.items():
            _placed(path, folder / file)
        with _child(folder, workdir, environment) as (uds, measures, log):
            server = Server(uds=uds)
            try:
                server.wait()
                return Answered(server.answers(manifest, cases), measures)
            except (Unavailable, OSError) as error:
                raise ReleaseInvalid(
                    "the server ended", where=manifest.model, got=_last_words(log) or squeezed(error)
                ) from error


def in_engine(url: str, image: Reference, environment: Mapping[str, str], cases: Sequence[Case]) -> Answered:
    """Raises ImageInvalid: the image is not what serves safely, or its server does not answer. EngineUnavailable."""
    engine = connect(url)
    try:
        pulled = engine.images.pull(image.name, tag=image.digest)
        if pulled.attrs["Config"].get("User") != USER:
            got = str(pulled.attrs["Config"].get("User") or "root")
            raise ImageInvalid("its user is another", where=str(image), got=got, want=USER)
        container = engine.containers.run(
            pulled.id,
            detach=True,
            environment=dict(environment),
            network_mode="none",
            read_only=True,
            cap_drop=["ALL"],
            security_opt=["no-new-privileges"],
            pids_limit=PROCESSES,
            mem_limit=MEMORY,
        )
        try:
            return Answered(
                _asked(container, image, cases), ("no network", "read-only", "no capabilities", f"user {USER}")
            )
        finally:
            container.remove(force=True)
            with suppress(docker.errors.APIError):  # another canary of this image is running
                engine.images.remove(str(image))
    except (docker.errors.APIError, requests.RequestException) as error:
        raise EngineUnavailable("broke off", where=url, got=squeezed(error)) from error


def _asked(container: Any, image: Reference, cases: Sequence[Case]) -> list[dict[str, Array]]:
    status, (out, err) = container.exec_run(["python", "-m", "infra.serving.ask"], demux=True)
    if status:
        said = (err or b"").decode(errors="replace").strip().splitlines() or [""]
        log = container.logs(tail=5).decode(errors="replace")
        raise ImageInvalid("its server does not answer", where=str(image), got=squeezed(f"{said[-1]} {log}"))
    found: list[dict[str, Array]] = [{} for _ in cases]
    for name, array in safetensors.numpy.load(out or b"").items():
        place, _, output = name.partition(".")
        found[int(place)][output] = array
    return found


@contextmanager
def _child(folder: Path, workdir: Path, environment: Mapping[str, str]) -> Iterator[tuple[str, tuple[str, ...], Path]]:
    """Its socket, the measures in force, and its log."""
    uds, log = workdir.parent / "socket", workdir.parent / "log"
    with socket.socket(socket.AF_UNIX) as listener, log.open("wb") as out:
        listener.bind(str(uds))
        listener.listen()
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "infra.locked_server", str(folder), str(workdir), str(listener.fileno())],
            cwd="/",
            env=_environment(folder, workdir) | dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=out,
            pass_fds=[listener.fileno()],
        )
        try:
            assert process.stdout is not None
            first = process.stdout.readline()
            if not first:
                process.wait(READY_S)
                raise ReleaseInvalid("the server does not start", where=folder.name, got=_last_words(log))
            yield str(uds), tuple(json.loads(first)), log
        finally:
            process.terminate()
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if process.stdout:
                process.stdout.close()


def _environment(folder: Path, workdir: Path) -> dict[str, str]:
    """By allow-list: no key, token or address of the worker's reaches it."""
    passed = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    own = {"PYTHONPATH": str(ROOT), "HOME": str(workdir), "TMPDIR": str(workdir), "PYTHONDONTWRITEBYTECODE": "1"}
    return passed | own | {"MODEL_DIR": str(folder)}


def _placed(source: Path, target: Path) -> None:
    """Linked where it can be: the same bytes, and nobody may write to them."""
    try:
        os.link(source, target)
    except OSError:
        target.write_bytes(source.read_bytes())


def _last_words(log: Path) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return squeezed(lines[-1]) if lines else ""


def chosen(format: Format) -> dict[str, str]:
    """The server's setting for one format."""
    return {"PACKHOUSE_FORMAT": format.value}
