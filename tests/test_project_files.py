"""The files that describe the project agree: pyproject.toml, the Makefile, the workflow of CI and the hooks."""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
MAKEFILE = (ROOT / "Makefile").read_text()
JOBS: dict[str, Any] = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())["jobs"]
HOOKS = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
PYTHON = re.compile(r"Programming Language :: Python :: (3\.[0-9]+)$")


def supported() -> list[str]:
    """The versions of Python that the wheel names."""
    return [match[1] for name in PROJECT["project"]["classifiers"] if (match := PYTHON.match(name))]


def commands() -> list[str]:
    return [step["run"] for job in JOBS.values() for step in job["steps"] if "run" in step]


def test_ci_runs_on_each_python_that_the_wheel_names():
    oldest, *later = supported()
    assert JOBS["check"]["strategy"]["matrix"]["python"] == later
    assert JOBS["suite"]["container"]["image"].startswith(f"python:{oldest}-")


def test_the_oldest_python_is_the_same_for_pip_ruff_and_mypy():
    oldest = supported()[0]
    assert PROJECT["project"]["requires-python"] == f">={oldest}"
    assert PROJECT["tool"]["mypy"]["python_version"] == oldest
    assert PROJECT["tool"]["ruff"]["target-version"] == f"py{oldest.replace('.', '')}"


def test_ci_runs_commands_that_exist():
    targets = [command.split()[1] for command in commands() if command.startswith("make ")]
    assert targets
    assert [target for target in targets if not re.search(rf"^{target}:", MAKEFILE, re.MULTILINE)] == []
    assert ".ci/run" in commands()
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


@pytest.mark.parametrize("name", JOBS)
def test_a_job_of_ci_ends_and_uses_actions_of_a_major_version(name):
    assert JOBS[name]["timeout-minutes"] <= 120
    used = [step["uses"] for step in JOBS[name]["steps"] if "uses" in step]
    assert used
    assert [action for action in used if not re.fullmatch(r"[\w-]+/[\w-]+@v[0-9]+", action)] == []


def test_hooks_run_tools_that_make_lint_runs_too():
    tools = [hook["entry"].split()[0] for hook in HOOKS]
    linted = MAKEFILE.split("\nlint:")[1].split("\n\n")[0].replace("$(BIN)", ".venv/bin")
    assert tools
    assert [tool for tool in tools if tool not in linted] == []
    assert {hook["language"] for hook in HOOKS} == {"system"}
