"""What of `make images-check` can be proved without an engine: its refusals, and what it starts and builds from."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from infra.deploy import wheels
from tests.images.material import PROGRAMS, ROOT, context, inputs_digest, lacking
from tests.images.services import docker_run, filled, services

VARIABLES = {
    "PREFECT_AUTH": "user:password",
    "PACKHOUSE_STORE": "/store",
    "PACKHOUSE_SOURCES": "[]",
    "PACKHOUSE_TRUSTED_PROGRAMS": "[]",
    "POSTGRES_PASSWORD": "p",
    "S3_ACCESS_KEY": "a",
    "S3_SECRET_KEY": "s",
    "MLFLOW_PASSWORD": "m",
    "MLFLOW_SESSION_KEY": "k",
    "MLFLOW_WEBHOOK_KEY": "w",
    "WEBHOOK_SECRET": "h",
}


def everywhere(name: str) -> str:
    return f"/usr/bin/{name}"


def test_a_machine_that_has_everything_lacks_nothing():
    assert lacking(user=0, which=everywhere, python=(3, 11)) == []


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_that_is_missing_is_named_with_its_package(program):
    (line,) = lacking(user=0, which=lambda name: None if name == program else everywhere(name), python=(3, 11))
    assert line == f"{program}: apt-get install {PROGRAMS[program]}"


def test_an_ordinary_user_and_another_python_are_told_what_to_do():
    root, python = lacking(user=1000, which=everywhere, python=(3, 12))
    assert root.startswith("root rights: ")
    assert "sudo" in root
    assert python.startswith("Python 3.11 in .venv")
    assert python.endswith("make images-check PYTHON=python3.11")


def test_the_command_itself_refuses_where_no_program_can_be_found(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "tests.images"],
        cwd=ROOT,
        env=os.environ | {"PATH": str(tmp_path), "PACKHOUSE_TEST_CACHE": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("the images were not built; this machine lacks:\n")
    assert "dockerd, docker, iptables, debootstrap" in done.stderr
    assert "apt-get install" in done.stderr
    assert done.stdout == ""
    assert not list(tmp_path.iterdir()), "nothing was begun"


@pytest.mark.parametrize("name", ["server", "apply", "mlflow", "webhook", "worker-cpu"])
def test_a_service_is_started_with_the_restrictions_of_compose(name):
    service = services()[name]
    words = docker_run(service, "image", VARIABLES, options=["--network", "none"])
    at = words.index("image")
    pairs = set(pairwise(words[:at]))
    assert {("--cap-drop", "ALL"), ("--security-opt", "no-new-privileges:true"), ("--user", "10001:10001")} <= pairs
    assert {"--read-only=true", "--init=true"} <= set(words[:at])
    assert {("--tmpfs", mount) for mount in service["tmpfs"]} <= pairs
    given = {filled(f"{key}={value}", VARIABLES) for key, value in service["environment"].items()}
    assert {("--env", each) for each in given} <= pairs
    assert words[at + 1 :] == [filled(word, VARIABLES) for word in service["command"]]
    assert not [word for word in words if "${" in word]


def test_variables_of_a_service_are_replaced_and_taken_away():
    service = {"environment": {"A": "${ONE:?}", "B": "${TWO:-two}", "C": "c"}, "command": ["run"]}
    words = docker_run(service, "image", {"ONE": "one"}, environment={"C": None, "D": "d"})
    assert words == ["--env", "A=one", "--env", "B=two", "--env", "D=d", "image", "run"]


def test_a_variable_that_compose_demands_is_demanded():
    with pytest.raises(KeyError, match="ONE"):
        filled("${ONE:?needed}", {})


def test_a_key_of_compose_that_would_be_lost_is_refused():
    with pytest.raises(ValueError, match="privileged"):
        docker_run({"command": ["run"], "privileged": True}, "image", {})


def test_the_context_is_a_clone_with_these_wheels_and_no_others(tmp_path):
    house = tmp_path / "house"
    house.mkdir()
    (house / wheels.LOCK).write_text("a==1 --hash=sha256:0\n")
    made = context(tmp_path / "context", {wheels.Kind.CPU: house})
    assert [path.relative_to(made / "wheels").as_posix() for path in (made / "wheels").rglob("*")] == [
        "cpu",
        f"cpu/{wheels.LOCK}",
    ]
    assert (made / ".dockerignore").read_bytes() == (ROOT / ".dockerignore").read_bytes()
    assert (made / "Dockerfile.worker").is_file()
    assert (made / "packhouse" / "__init__.py").is_file()
    assert not list(made.rglob("__pycache__"))


def test_wheels_are_fetched_anew_when_a_version_or_an_example_changes(tmp_path):
    for name in ("pyproject.toml", "constraints.txt", "infra/deploy/wheels.py", "examples/a.py"):
        path: Path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("1")
    seen = {inputs_digest(tmp_path)}
    for path in sorted(tmp_path.rglob("*.*")):
        path.write_text("2")
        seen.add(inputs_digest(tmp_path))
    assert len(seen) == 5
