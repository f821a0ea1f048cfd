"""The worker image: what its Dockerfile may say, what gets into its context, and the wheels that it is made of."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import packhouse
from infra.deploy import wheels
from packhouse.errors import DigestMismatch, NotFound, Unavailable
from tests.images.building import BASE, LOCKED_DOWN, WORKER, build_image, engine_folder
from tests.images.material import context, kept, lacking, wheelhouse
from tests.servers.engine import as_image, engine

ROOT = Path(__file__).resolve().parents[3]
TEXT = (ROOT / "Dockerfile.worker").read_text()
CODE = ("packhouse", "infra", "tasks", "flows")


def instructions() -> list[tuple[str, str]]:
    lines = "\n".join(line for line in TEXT.splitlines() if not line.startswith("#")).replace("\\\n", " ").splitlines()
    return [(word, rest.strip()) for word, _, rest in (line.strip().partition(" ") for line in lines if line.strip())]


def of(word: str) -> list[str]:
    return [rest for name, rest in instructions() if name == word]


def test_it_builds_without_a_network_without_buildkit_and_from_a_base_that_must_be_named():
    assert not TEXT.startswith("# syntax")
    assert of("ARG") == ["BASE", "TORCH=cpu"]
    assert of("FROM") == ["${BASE} AS build", "${BASE}"]
    assert not of("ADD")
    for run in of("RUN"):
        assert not re.search(r"--mount|<<|\b(curl|wget|apt-get|git)\b", run)
    assert not [copy for copy in of("COPY") if "--chmod" in copy or "--link" in copy]
    (install,) = [run for run in of("RUN") if " install " in run]
    for option in ("--no-index", "--require-hashes", "--only-binary :all:", "--no-deps"):
        assert option in install
    assert not [run for run in of("RUN") if re.search(r"\|\||; *true", run)], "what fails must end the build"
    assert of("RUN")[-1].endswith(" check"), "what is missing for this base's Python is found by the build"


def test_it_is_no_root_and_holds_no_secret():
    assert of("USER") == ["10001:10001"]
    words = [word for word, _ in instructions()]
    assert words.index("USER") > max(at for at, word in enumerate(words) if word == "FROM")
    assert not [line for line in of("ENV") + of("ARG") if re.search(r"PASSWORD|SECRET|TOKEN|_KEY|AUTH", line)]
    assert "PACKHOUSE_WORKER=/opt/packhouse" in of("ENV")[-1]
    assert not [line for line in of("ENV") + of("RUN") if "PYTHONPATH" in line], (
        "a child that proves a release gets no environment"
    )


def test_code_comes_last_so_that_a_change_of_it_sends_little():
    last = [rest for word, rest in instructions() if word == "COPY"][-1]
    assert last == "--from=build /opt/packhouse /opt/packhouse"
    build = [rest for rest in of("COPY") if not rest.startswith("--from")]
    assert build[0] == "wheels/${TORCH} /src/wheels"
    assert {rest.split()[0] for rest in build[2:]} == set(CODE)


def test_only_what_the_image_is_made_of_gets_into_the_context():
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert lines[0] == "*"
    taken = {line[1:] for line in lines if line.startswith("!")}
    copied = {word for rest in of("COPY") if not rest.startswith("--from") for word in rest.split()[:-1]}
    assert taken == {name.partition("/")[0] for name in copied}
    assert all((ROOT / name).exists() for name in taken - {"wheels"})
    assert "**/.env" in lines[lines.index("!wheels") :], "after what is taken, or it has no effect"


def wheel(folder: Path, name: str, content: bytes = b"x") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-py3-none-any.whl"
    path.write_bytes(content)
    return path


def test_the_lock_names_every_wheel_with_its_digest_and_reads_back(tmp_path):
    wheel(tmp_path, "Some_Thing-1.0")
    wheel(tmp_path, "torch-2.13.0+cpu")
    wheel(tmp_path, "packhouse-0.1.0")
    locked = wheels.digests(tmp_path)
    assert locked.keys() == {"some-thing==1.0", "torch==2.13.0+cpu"}, "our own code comes with the code"
    (tmp_path / wheels.LOCK).write_text(wheels.render(locked))
    assert wheels.read(tmp_path / wheels.LOCK) == locked
    assert "some-thing==1.0 --hash=sha256:2d711642" in wheels.render(locked)


def test_a_wheel_with_other_bytes_than_last_time_is_refused_and_nothing_is_replaced(tmp_path, monkeypatch):
    into = tmp_path / "cpu"
    monkeypatch.setattr(wheels, "_download", lambda torch, new, packages: wheel(new, "a-1", b"first"))
    wheels.fetch(wheels.Kind.CPU, into)
    before = (into / wheels.LOCK).read_text()
    monkeypatch.setattr(wheels, "_download", lambda torch, new, packages: wheel(new, "a-1", b"other"))
    with pytest.raises(
        DigestMismatch, match=r"a==1: other bytes than last time; got sha256:.*remove requirements.lock"
    ):
        wheels.fetch(wheels.Kind.CPU, into)
    assert (into / wheels.LOCK).read_text() == before
    assert [path.name for path in tmp_path.iterdir()] == ["cpu"], "nothing is left over"


def test_each_build_of_torch_is_asked_for_by_a_name_that_the_other_can_not_answer():
    version = re.search(r"^torch==(\S+)$", wheels.CONSTRAINTS.read_text(), re.MULTILINE)[1]
    assert f"\ntorch=={version}+cpu\n" in wheels.constraints(wheels.Kind.CPU)
    assert f"\ntorch==={version}\n" in wheels.constraints(wheels.Kind.CUDA)


def test_pip_that_gets_nothing_and_a_folder_that_is_not_there_are_said_in_one_line(tmp_path, monkeypatch):
    with pytest.raises(NotFound, match="no such folder"):
        wheels.fetch(wheels.Kind.CPU, tmp_path / "cpu", ["./absent"])
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    with pytest.raises(Unavailable, match="pip could not get the wheels") as caught:
        wheels.fetch(wheels.Kind.CPU, tmp_path / "cpu")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def needed_folders() -> set[str]:
    """The folders of the repository that a worker's programs import, from the entrypoints and commands on."""
    entrypoints = [each["entrypoint"] for each in yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]]
    started = re.findall(r"python, -m, ([a-z_.]+)", (ROOT / "infra/deploy/compose.yaml").read_text())
    found, new = set[str](), {name.partition(".")[0] for name in [*entrypoints, *started, "packhouse"]} & LOCAL
    while new:
        found |= new
        new = {name for folder in new for name in imported_from(ROOT / folder)} & LOCAL - found
    return found


def imported_from(folder: Path) -> set[str]:
    nodes = [node for path in folder.rglob("*.py") for node in ast.walk(ast.parse(path.read_text()))]
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)]
    return {name.partition(".")[0] for name in names}


LOCAL = {path.name for path in ROOT.iterdir() if path.is_dir() and next(path.glob("*.py"), None)}
"""Folders that can be imported from the repository's root, such as tests and bench."""


def test_it_copies_the_folders_that_a_worker_imports_and_no_others():
    assert {"tests", "bench"} <= LOCAL
    assert needed_folders() == set(CODE)


@pytest.mark.slow
def test_what_it_copies_is_enough_for_every_deployment(tmp_path):
    """Each entrypoint is imported where nothing of the repository is but what the Dockerfile copies."""
    for name in [name for rest in of("COPY") if not rest.startswith("--from") for name in rest.split()[:-1]]:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
        elif (ROOT / name).is_file():
            shutil.copy(ROOT / name, tmp_path / name)
    deployments = yaml.safe_load((tmp_path / "prefect.yaml").read_text())["deployments"]
    modules = [each["entrypoint"].rpartition(".")[0] for each in deployments]
    done = subprocess.run(
        [sys.executable, "-c", FROM_WHERE, str(tmp_path), *modules, "packhouse.cli"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    imported = json.loads(done.stdout)
    assert {name.partition(".")[0] for name in imported} == set(CODE)
    assert not {name: file for name, file in imported.items() if not Path(file).is_relative_to(tmp_path)}


FROM_WHERE = f"""
import importlib, json, sys
sys.path.insert(0, sys.argv[1])
for name in sys.argv[2:]:
    importlib.import_module(name)
ours = {{name: module for name, module in sys.modules.items() if name.partition(".")[0] in {CODE}}}
print(json.dumps({{name: module.__file__ for name, module in ours.items() if getattr(module, "__file__", None)}}))
"""


@pytest.mark.server
@pytest.mark.timeout(3600)
def test_the_image_builds_without_a_network_and_its_worker_starts_as_an_ordinary_user(tmp_path):
    """On the base and the wheels that `make images-check` left; it also releases a model in the image."""
    if lacks := lacking():
        pytest.skip(f"NOT RUN: the worker image was not built; this machine lacks {'; '.join(lacks)}")
    if not kept():
        pytest.skip("NOT RUN: the worker image was not built; `make images-check` does, and keeps a base for this test")
    with engine_folder() as place, engine(place, isolated=True) as docker:
        as_image(docker, BASE)
        made = context(tmp_path / "context", {wheels.Kind.CPU: wheelhouse(wheels.Kind.CPU)})
        build_image(docker, made, WORKER)
        shutil.rmtree(made)
        script = (
            "id -u; packhouse version; prefect worker start --help;"
            " env -i /opt/venv/bin/python -P -c 'import packhouse, flows'"
        )
        options = ["--rm", *LOCKED_DOWN, "--tmpfs", "/tmp"]
        lines = docker.docker("run", *options, WORKER, "sh", "-e", "-c", script).stdout.splitlines()
    assert lines[:2] == ["10001", packhouse.__version__]
    assert any("--pool" in line for line in lines)
