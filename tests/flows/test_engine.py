"""With a real engine and a real registry: the runtime image is built, a model's image runs as its user runs it."""

from __future__ import annotations

import base64
import json
import os
import secrets
import subprocess
import time
from collections.abc import Callable, Iterator

import pytest

from flows.release import released as release
from flows.run_result import Status
from infra.deploy import runtime_image, wheels
from infra.images.docker import connected
from infra.registry.client import Client
from infra.registry.credentials import Credentials
from infra.registry.reference import Reference, parse
from infra.settings import settings
from infra.worker.context import WorkerContext, use, worker_context
from packhouse.errors import EngineUnavailable, ImageInvalid, RegistryUnavailable, Unavailable
from packhouse.release.lookup import find
from tests.servers.engine import Engine, as_image, engine
from tests.servers.fixtures import or_skip
from tests.servers.place import CannotRunError, installed
from tests.support.imaging import lose
from tests.support.released import Copy

__all__ = ["lose"]

pytestmark = [pytest.mark.flow, pytest.mark.server, pytest.mark.usefixtures("api"), pytest.mark.timeout(1500)]
"""The first one debootstraps the base image, where the cache does not have it: at most 900 s."""

LOCKED_DOWN = ["--network", "none", "--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"]
RUNTIME_BYTES = 350_000_000
READY_S = 120


@pytest.fixture(scope="module")
def docker(tmp_path_factory) -> Iterator[Engine]:
    yield from or_skip(lambda: engine(tmp_path_factory.mktemp("engine")), "a Docker engine")


@pytest.fixture(scope="module")
def runtime(docker, open_registry) -> Reference:
    """The runtime image, built as a user builds it, on a base made here."""
    try:
        installed("serving-wheels", lambda folder: wheels.fetch(wheels.Kind.SERVING_CPU, folder / "wheels"))
        as_image(docker, "base:test")
    except (CannotRunError, Unavailable) as error:
        pytest.skip(f"NOT TESTED: {error}")
    link_wheels()
    return runtime_image.build(docker.url, parse(f"{open_registry.host}/e/runtime"), "base:test")


def link_wheels() -> None:
    """Where the Dockerfile looks for them."""
    from tests.servers.place import cache

    target = runtime_image.ROOT / "wheels" / "serving-cpu"
    if not target.exists():
        target.parent.mkdir(exist_ok=True)
        subprocess.run(["cp", "-rl", cache() / "serving-wheels" / "wheels", target], check=True)


CANARIES = {name: secrets.token_hex(16) for name in ("AWS_SECRET_ACCESS_KEY", "PACKHOUSE_WEBHOOK_SECRET")}
"""Secrets of the workers that make the images here."""


@pytest.fixture(scope="module")
def original(runtime, docker, open_registry, released_models) -> Callable[[str], tuple[Copy, dict[str, str]]]:
    """Gives a function: the release whose image that builder made, made once; and the settings that made it."""
    run = os.urandom(3).hex()

    def made_by(builder: str) -> tuple[Copy, dict[str, str]]:
        worker = {"runtime_image": str(runtime), "image_builder": builder, "engine": docker.url}
        worker["webhook_secret"] = CANARIES["PACKHOUSE_WEBHOOK_SECRET"]
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("AWS_SECRET_ACCESS_KEY", CANARIES["AWS_SECRET_ACCESS_KEY"])
            image = f"{open_registry.host}/e/{builder}-{run}/linear"
            return released_models.original(image=image, worker=worker), worker

    return made_by


@pytest.fixture
def built(home, original, tmp_path, monkeypatch, sandbox) -> Callable[[str], Copy]:
    """Gives a function that copies that release, and makes this process a worker with that builder."""

    def copy(builder: str) -> Copy:
        first, worker = original(builder)
        made = first.copied(tmp_path)
        for name, value in worker.items():
            monkeypatch.setenv(f"PACKHOUSE_{name.upper()}", value)
        settings.cache_clear()
        use(WorkerContext(settings(), sandbox))
        return made

    return copy


def test_runtime_image_is_small_and_nobodys(docker, runtime):
    docker.docker("pull", str(runtime))
    (found,) = json.loads(docker.docker("image", "inspect", str(runtime)).stdout)
    assert found["Size"] < RUNTIME_BYTES
    assert found["Config"]["User"] == "10001:10001"
    assert found["Config"]["Healthcheck"]["Test"][:2] == ["CMD", "python"]
    inside = docker.docker("run", "--rm", *LOCKED_DOWN, str(runtime), "python", "-c", NO_TORCH).stdout
    assert json.loads(inside) == {"uid": 10001, "foreign": []}


NO_TORCH = """
import importlib.util, json, os
foreign = [name for name in ("torch", "prefect", "mlflow", "boto3", "docker") if importlib.util.find_spec(name)]
print(json.dumps({"uid": os.getuid(), "foreign": foreign}))
"""


@pytest.mark.parametrize("builder", ["registry", "docker"])
def test_model_image_of_either_builder_answers_as_a_container(docker, built, builder):
    built(builder)
    record = find(worker_context().store, "linear@latest").record
    assert record.image is not None
    image = f"{record.image.repository}:latest"
    name = docker.docker("run", "-d", *LOCKED_DOWN, "--memory", "1g", image).stdout.strip()
    try:
        deadline = time.monotonic() + READY_S
        while (status := health(docker, name)) != "healthy":
            assert time.monotonic() < deadline, f"{status}: {docker.docker('logs', name).stderr}"
            time.sleep(0.5)
        rows = {"rows": [[0.5] * 16, [-1.0] * 16]}
        code = (
            "import json, urllib.request as u;"
            f"r = u.Request('http://127.0.0.1:8080/predict', json.dumps({rows}).encode(), "
            "{'Content-Type': 'application/json'}); print(u.urlopen(r).read().decode())"
        )
        answer = json.loads(docker.docker("exec", name, "python", "-c", code).stdout)
        assert len(answer["outputs"]["y"]) == 2
        docker.docker("stop", name)
        (ended,) = json.loads(docker.docker("inspect", name).stdout)
        assert ended["State"]["ExitCode"] == 0
    finally:
        docker.docker("rm", "-f", name)


@pytest.mark.parametrize("builder", ["registry", "docker"])
def test_only_what_the_registry_builder_made_can_be_pushed_again(built, open_registry, lose, builder):
    """An engine never makes the same bytes twice; so nothing else takes the place of what it made."""
    source = built(builder).source
    record = find(worker_context().store, "linear@latest").record
    assert record.image is not None
    image = parse(record.image.reference)
    lose(image.digest)
    (end,) = release([source])
    there = Client(open_registry.host, known=Credentials()).has_manifest(image.repository, image.digest)
    if builder == "registry":
        assert (end.status, there) == (Status.UNCHANGED, image.digest), end.line()
    else:
        assert (end.status, there) == (Status.REFUSED, "")
        assert "comes to another image" in end.reason


def health(docker: Engine, name: str) -> str:
    return docker.docker("inspect", "--format", "{{.State.Health.Status}}", name).stdout.strip()


def test_no_secret_of_the_worker_gets_into_the_image(docker, built):
    made = built("registry")
    repository = find(worker_context().store, "linear@latest").record.image.repository
    docker.docker("pull", f"{repository}:latest")
    saved = subprocess.run(
        ["docker", "save", f"{repository}:latest"],
        env=os.environ | {"DOCKER_HOST": docker.url},
        capture_output=True,
        check=True,
    ).stdout
    assert made.release.encode() in saved, "nothing would be found in what is packed in another way"
    for secret in CANARIES.values():
        for form in (secret.encode(), base64.b64encode(secret.encode()), bytes.fromhex(secret)):
            assert form not in saved


def test_push_that_fails_is_a_failure_with_its_reason(docker, runtime, tmp_path):
    """docker's SDK returns as if all were well."""
    from infra.images.docker import build_and_push

    (tmp_path / "m").write_bytes(b"m")
    files = {"models/m": tmp_path / "m"}
    gone = Reference("127.0.0.1:1", "nobody/listens")
    with pytest.raises(RegistryUnavailable, match="push failed"):
        build_and_push(docker.url, files, base=runtime, target=gone, folder="models", labels={}, environment={})


def test_engine_that_does_not_answer_says_what_to_set():
    with pytest.raises(EngineUnavailable, match="PACKHOUSE_ENGINE"), connected("unix:///nowhere.sock"):
        pass


def test_image_that_runs_as_root_is_no_canary(docker, open_registry, runtime):
    from infra.images.canary import in_engine

    name = f"{open_registry.host}/e/root"
    subprocess.run(
        ["docker", "build", "-t", f"{name}:x", "-"],
        input=f"FROM {runtime}\nUSER root\n",
        env=os.environ | {"DOCKER_HOST": docker.url},
        text=True,
        check=True,
        capture_output=True,
    )
    docker.docker("push", f"{name}:x")
    digest = Client(open_registry.host, known=Credentials()).has_manifest("e/root", "x")
    with pytest.raises(ImageInvalid, match="its user is another"):
        in_engine(docker.url, parse(f"{name}@{digest}"), {}, [], memory=2**30)
