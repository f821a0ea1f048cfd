"""The images by name, how each is built, and docker commands that fail with what they printed last."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from infra.deploy.runtime_image import DOCKERFILE as RUNTIME_DOCKERFILE
from tests.images.material import ROOT
from tests.servers.engine import Engine

BASE, WORKER, RUNTIME = "packhouse-check:base", "packhouse-check:worker", "packhouse-check:runtime"
DOCKERFILES = {WORKER: "Dockerfile.worker", RUNTIME: RUNTIME_DOCKERFILE}
USER = 10001
LOCKED_DOWN = ["--network", "none", "--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"]
TIMEOUT_S = 3600
READY_S = 300
LAST_LINES = 40


class StepFailed(Exception):
    """A step did not do what it must. The text has the last lines of what it printed."""


@contextmanager
def engine_folder() -> Iterator[Path]:
    """For an engine, gone at the end. Its path is short: those of an engine's sockets have at most 107 characters."""
    place = Path(tempfile.mkdtemp(prefix="packhouse-engine-"))
    try:
        yield place
    finally:
        run(["rm", "-rf", str(place)], os.environ)  # Python takes minutes for the many files of an engine


def build_image(docker: Engine, folder: Path, image: str) -> None:
    """As docs/cluster.md and docs/images.md say. Raises StepFailed."""
    words = ["build", "--network", "none", "--file", str(folder / DOCKERFILES[image]), "--build-arg", f"BASE={BASE}"]
    run_docker(docker, [*words, "--tag", image, str(folder)])


def inspect_worker(docker: Engine) -> None:
    """Raises StepFailed: it runs as another user, or holds other files of the repository than its folders have."""
    (config,) = json.loads(run_docker(docker, ["image", "inspect", WORKER]))
    if config["Config"]["User"] != f"{USER}:{USER}":
        raise StepFailed(f"the worker image runs as {config['Config']['User']!r}")
    words = ["run", "--rm", *LOCKED_DOWN, WORKER]
    listed = run_docker(docker, [*words, "find", ".", "-type", "f", "-not", "-name", "*.pyc", "-printf", "%P\n"])
    made_by_the_build = (".dist-info/", ".egg-info/")
    found = {path for path in listed.splitlines() if not any(part in path for part in made_by_the_build)}
    if wrong := sorted(copied_files() ^ found):
        raise StepFailed(f"/opt/packhouse holds other files than the repository's folders: {', '.join(wrong[:20])}")


def copied_files() -> set[str]:
    """The files of the repository that Dockerfile.worker copies, as .dockerignore lets it."""
    lines = [line.split() for line in (ROOT / DOCKERFILES[WORKER]).read_text().splitlines()]
    copies = [words[1:-1] for words in lines if words[:1] == ["COPY"] and words[-1].startswith("/opt/packhouse")]
    names = [name for words in copies for name in words if not words[0].startswith("--from")]
    paths = [path for name in names for path in ((ROOT / name).rglob("*") if (ROOT / name).is_dir() else [ROOT / name])]
    files = [path for path in paths if path.is_file() and path.suffix != ".pyc" and path.name != ".env"]
    return {path.relative_to(ROOT).as_posix() for path in files}


def image_size(docker: Engine, image: str) -> int:
    """In bytes, with the layers of its base."""
    return int(run_docker(docker, ["image", "inspect", "--format", "{{.Size}}", image]))


def wait_until_healthy(docker: Engine, name: str) -> None:
    """Raises StepFailed: the container ended, is unhealthy or was never healthy."""
    asked = ["inspect", "--format", "{{.State.Status}} {{.State.Health.Status}}", name]
    deadline = time.monotonic() + READY_S
    while (state := run_docker(docker, asked).strip()) != "running healthy":
        if state != "running starting" or time.monotonic() > deadline:
            raise StepFailed(f"{name} is {state}: {logs(docker, name)}")
        time.sleep(0.5)


def logs(docker: Engine, name: str) -> str:
    return last_lines(try_docker(docker, ["logs", "--tail", str(LAST_LINES), name]))


def run_docker(docker: Engine, words: Sequence[str]) -> str:
    """What it printed on stdout. Raises StepFailed."""
    done = try_docker(docker, words)
    if done.returncode:
        raise StepFailed(f"docker {' '.join(words)[:300]}\nended with {done.returncode}: {last_lines(done)}")
    return done.stdout


def try_docker(docker: Engine, words: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Whatever its exit status is. Raises StepFailed: it took too long."""
    return run(["docker", *words], os.environ | {"DOCKER_HOST": docker.url})


def run(
    command: Sequence[str], environment: Mapping[str, str], *, folder: Path = ROOT
) -> subprocess.CompletedProcess[str]:
    """Raises StepFailed: it took too long."""
    try:
        return subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise StepFailed(f"{' '.join(command)[:300]}\nwas not done after {TIMEOUT_S} s") from error


def last_lines(done: subprocess.CompletedProcess[str]) -> str:
    return "\n".join([*done.stdout.splitlines()[-LAST_LINES:], *done.stderr.splitlines()[-LAST_LINES:]])
