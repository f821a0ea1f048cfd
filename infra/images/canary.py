"""The canary: the server of a release, started as its user starts it, answers the golden cases over its protocol.

With an engine it is the pushed image, by digest, as a container; without one the same server on the same files in a
child that is locked down as such a container is. Either way it has no network, writes nothing and may nothing.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker.errors
import safetensors.numpy

from infra.images.builders import USER
from infra.images.docker import connected
from infra.registry.reference import Reference
from infra.sandbox.lockdown import Measure
from infra.sandbox.terminate import end
from packhouse.errors import ImageInvalid, ReleaseInvalid, Unavailable, squeezed
from packhouse.formats.arrays import Array
from packhouse.parity.judge import Case
from packhouse.release.manifest import Manifest
from packhouse.serving.oip_client import READY_S, Server

ROOT = Path(__file__).resolve().parent.parent.parent
PROCESSES = 256
STOP_S = 10
_SHORT = "/tmp" if os.access("/tmp", os.W_OK) else None  # noqa: S108 - a socket's path may have 107 bytes
PASSED_ON = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH")


@dataclass(frozen=True)
class Answered:
    """What the server said to each case, and what it was held to."""

    answers: list[dict[str, Array]]
    measures: tuple[str, ...]


def in_child(
    folder: Path,
    files: Mapping[str, Path],
    environment: Mapping[str, str],
    manifest: Manifest,
    cases: Sequence[Case],
    *,
    memory: int,
    require: Iterable[Measure] = (),
) -> Answered:
    """folder: an empty one, on the disk of the files. files: name -> the file, hashed already. memory: bytes of the
    server's own. require: measures without which it does not count.

    Raises ReleaseInvalid: the server refuses the release, does not answer or ends. Unavailable: it does not get ready
    in time, or this host can not lock it down as required."""
    models, workdir = folder / "models", folder / "work"
    models.mkdir()
    workdir.mkdir()
    for file, path in files.items():
        _placed(path, models / file)
    with _child(models, workdir, environment, memory) as (server, measures, ended):
        if missing := [measure for measure in require if measure.value not in measures]:
            raise Unavailable(
                "PH-0356 this host can not lock the server down as required", got=f"missing: {missing[0].value}"
            )
        try:
            server.wait()
            return Answered(server.answers(manifest, cases), measures)
        except (Unavailable, OSError) as error:
            if words := ended():
                raise ReleaseInvalid("PH-0357 the server ended", where=manifest.model, got=words) from error
            if isinstance(error, OSError):
                raise Unavailable(
                    "PH-0358 the server does not answer", where=manifest.model, got=squeezed(error)
                ) from error
            raise


def in_engine(
    url: str, image: Reference, environment: Mapping[str, str], cases: Sequence[Case], *, memory: int
) -> Answered:
    """memory: bytes that the container may take.

    Raises ImageInvalid: the image is not what serves safely, or its server does not answer. EngineUnavailable."""
    with connected(url) as engine:
        pulled = engine.images.pull(image.name, tag=image.digest)
        if pulled.attrs["Config"].get("User") != USER:
            got = str(pulled.attrs["Config"].get("User") or "root")
            raise ImageInvalid("PH-0355 its user is another", where=str(image), got=got, want=USER)
        container = engine.containers.run(
            pulled.id,
            detach=True,
            environment=dict(environment),
            network_mode="none",
            read_only=True,
            cap_drop=["ALL"],
            security_opt=["no-new-privileges"],
            pids_limit=PROCESSES,
            mem_limit=memory,
        )
        try:
            return Answered(
                _asked(container, image, cases), ("no network", "read-only", "no capabilities", f"user {USER}")
            )
        finally:
            container.remove(force=True)
            with suppress(docker.errors.APIError):  # another canary of this image is running
                engine.images.remove(str(image))


def _asked(container: Any, image: Reference, cases: Sequence[Case]) -> list[dict[str, Array]]:
    status, (out, err) = container.exec_run(["python", "-m", "packhouse.serving.oip_client"], demux=True)
    if status:
        said = (err or b"").decode(errors="replace").strip().splitlines() or [""]
        log = container.logs(tail=5).decode(errors="replace")
        raise ImageInvalid("PH-0354 its server does not answer", where=str(image), got=squeezed(f"{said[-1]} {log}"))
    found: list[dict[str, Array]] = [{} for _ in cases]
    for name, array in safetensors.numpy.load(out or b"").items():
        place, _, output = name.partition(".")
        found[int(place)][output] = array
    return found


@contextmanager
def _child(
    models: Path, workdir: Path, environment: Mapping[str, str], memory: int
) -> Iterator[tuple[Server, tuple[str, ...], Callable[[], str]]]:
    """The server, the measures in force, and what tells its last words once it has ended."""
    log = workdir.parent / "log"
    with tempfile.TemporaryDirectory(prefix="canary-", dir=_SHORT) as short, log.open("wb") as out:
        uds = str(Path(short) / "socket")
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(uds)
            listener.listen()
            handle = str(listener.fileno())
            process = subprocess.Popen(
                [
                    sys.executable,
                    "-P",
                    "-m",
                    "infra.images.canary_child",
                    str(models),
                    str(workdir),
                    handle,
                    str(memory),
                ],
                cwd="/",
                env=_environment(models, workdir) | dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=out,
                pass_fds=[listener.fileno()],
            )

        def ended() -> str:
            status = process.poll()
            return "" if status is None else _last_words(log) or f"status {status}"

        try:
            first = _first_line(process)
            if not first:
                process.kill()
                process.wait()
                raise ReleaseInvalid("PH-0353 the server does not start", where="canary", got=ended())
            yield Server(uds=uds, alive=lambda: process.poll() is None), tuple(json.loads(first)), ended
        finally:
            end(process, grace_s=STOP_S)
            if process.stdout:
                process.stdout.close()


def _first_line(process: subprocess.Popen[bytes]) -> bytes:
    """Nothing where it ends, or hangs, before it is locked down."""
    assert process.stdout is not None
    readable, _, _ = select.select([process.stdout], [], [], READY_S)
    return process.stdout.readline() if readable else b""


def _environment(folder: Path, workdir: Path) -> dict[str, str]:
    """By allow-list: no key, token or address of the worker's reaches it."""
    passed = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    own = {"PYTHONPATH": str(ROOT), "HOME": str(workdir), "TMPDIR": str(workdir), "PYTHONDONTWRITEBYTECODE": "1"}
    own |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    return passed | own | {"MODEL_DIR": str(folder)}


def _placed(source: Path, target: Path) -> None:
    """Linked where it can be: the same bytes, and nobody may write to them."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _last_words(log: Path) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return squeezed(lines[-1]) if lines else ""
