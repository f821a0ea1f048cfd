"""README's steps, followed line by line by somebody who has nothing but the wheel, or a clone: `make wheel-check`."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.infra.deploy.test_local import postgresql
from tests.servers.place import free_ports
from tests.support import environments
from tests.support.environments import OFFLINE, ROOT, SYSTEM_PATH, copy_clone
from tests.support.followed import Shell, Step, follow, missing, steps

README = (ROOT / "README.md").read_text()
OWN, CLUSTER = steps(README, "## Release your own model"), steps(README, "## Every night, on a cluster")
PATIENCE_S = 300.0


def variables(home: Path, wheel: Path) -> dict[str, str]:
    """Of a new user's shell. pip finds packhouse where this says, and fetches nothing."""
    kept = {name: os.environ[name] for name in ("LANG", "TMPDIR") if name in os.environ}
    own = {"HOME": str(home), "USER": "ann", "PATH": SYSTEM_PATH, "PIP_FIND_LINKS": str(wheel.parent)}
    return kept | own | OFFLINE | {"DO_NOT_TRACK": "1", "PACKHOUSE_LATENCY_S": "0.02"}


def test_files_and_commands_are_found_in_a_page():
    page = "# A\n## B\n```toml\n# a/b.toml\nx = 1\n```\n```text\n$ no\n```\n```console\n$ one\nof …\n$ two\n```\n## C\n"
    assert steps(page, "## B") == [
        Step(file="a/b.toml", text="# a/b.toml\nx = 1\n"),
        Step(command="one", printed=("of …",)),
        Step(command="two"),
    ]
    assert missing(("released churn/… latest#1", "gone"), "talk\nreleased churn/5f0c latest#1\n") == ["gone"]


@pytest.mark.slow
def test_a_step_that_fails_or_prints_something_else_is_found(tmp_path):
    with Shell(tmp_path, os.environ, tmp_path / "log") as shell:
        follow(shell, tmp_path, [Step(command="cd / && x=1"), Step(command="echo $x $PWD", printed=("1 /",))], {})
        with pytest.raises(AssertionError, match="no such program"):
            follow(shell, tmp_path, [Step(command="echo no such program; false")], {})
        with pytest.raises(AssertionError, match="wanted"):
            follow(shell, tmp_path, [Step(command="echo got", printed=("wanted",))], {})


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_release_your_own_model_can_be_followed_line_by_line(wheel, tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    project = tmp_path / "project"
    # `python3 -m venv .venv` finds what pip would fetch from an index there already, and keeps it
    environments.link(project / ".venv", wheel, "worker")
    (port,) = free_ports(1)
    with Shell(project, variables(home, wheel), tmp_path / "log") as shell:
        follow(shell, project, OWN, {"8080": str(port)})


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that the database's user can reach."""
    if reason := postgresql():
        if os.environ.get("PACKHOUSE_TEST_SERVERS") == "required":
            pytest.fail(reason)
        pytest.skip(f"NOT TESTED: make up: {reason}")
    folder = Path(tempfile.mkdtemp(prefix="packhouse-readme-", dir="/var/tmp"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.long
@pytest.mark.flow
@pytest.mark.server
@pytest.mark.timeout(1800)
def test_the_steps_on_a_cluster_can_be_followed_line_by_line(wheel, place):
    clone, home = place / "packhouse", place / "home"
    copy_clone(clone)
    home.mkdir()
    environments.link(clone / ".venv", wheel, "worker", "cluster", "serving", "test")
    up = next(at for at, step in enumerate(CLUSTER) if step.command.startswith(".venv/bin/packhouse verify"))
    with Shell(clone, variables(home, wheel), place / "log") as shell:
        try:
            follow(shell, place / "my-models", [step for step in OWN if step.file], {})
            follow(shell, clone, CLUSTER[:up], {})
            deadline = time.monotonic() + PATIENCE_S
            while shell.type(CLUSTER[up].command)[0] and time.monotonic() < deadline:
                time.sleep(1)
            follow(shell, clone, CLUSTER[up:], {})
        finally:
            shell.type("make down")
