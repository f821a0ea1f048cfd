"""What `import packhouse` gives: its public names, each imported when it is first used, and nothing heavy."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import packhouse
from packhouse.consume import fetch, session
from packhouse.training import samples, source, staging

ROOT = Path(__file__).resolve().parents[2]


def in_a_fresh_process(program: str) -> str:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_public_names_are_those_of_the_modules_that_define_them():
    assert packhouse.__all__ == ["Fetched", "Staged", "Standardise", "fetch", "open_session", "stage"]
    assert (packhouse.fetch, packhouse.Fetched) == (fetch.fetch, fetch.Fetched)
    assert packhouse.open_session is session.open_session
    assert (packhouse.stage, packhouse.Staged, packhouse.Standardise) == (
        staging.stage,
        source.Staged,
        samples.Standardise,
    )


@pytest.mark.parametrize("program", ["from packhouse import *", "from packhouse import stage, fetch"])
def test_names_can_be_imported_in_a_process_that_has_none_yet(program):
    assert in_a_fresh_process(f"{program}; print(stage.__module__, fetch.__module__)") == (
        "packhouse.training.staging packhouse.consume.fetch"
    )


def test_a_name_brings_in_only_what_it_needs():
    program = "import packhouse, sys, json; packhouse.stage; print(json.dumps(list(sys.modules)))"
    loaded = set(json.loads(in_a_fresh_process(program)))
    assert "packhouse.training.staging" in loaded
    assert not {"packhouse.consume.fetch", "packhouse.trust.signatures", "torch"} & loaded


def test_our_modules_are_attributes_without_being_imported_by_name():
    program = "import packhouse; print(packhouse.errors.Refused.__name__, packhouse.store.open_store.__name__)"
    assert in_a_fresh_process(program) == "Refused open_store"


def test_all_public_names_are_listed_before_they_are_used():
    program = "import packhouse; print(set(packhouse.__all__) <= set(dir(packhouse)), packhouse.__version__)"
    assert in_a_fresh_process(program) == f"True {packhouse.__version__}"


@pytest.mark.parametrize("name", ["nothing", "__wrapped__", "_pytest"])
def test_a_name_that_is_not_there_is_an_attribute_error(name):
    assert not hasattr(packhouse, name)
    with pytest.raises(AttributeError, match=rf"^module 'packhouse' has no attribute '{name}'$"):
        getattr(packhouse, name)
    with pytest.raises(ImportError, match="cannot import name 'nothing'"):
        exec("from packhouse import nothing")


@pytest.mark.parametrize(
    "program",
    [
        "from packhouse.preprocessing import from_sklearn as f; print(f.__module__)",
        "import packhouse; print(packhouse.preprocessing.from_sklearn.__module__)",
    ],
)
def test_a_module_that_0_1_documented_still_works_and_says_its_new_name(program):
    done = subprocess.run([sys.executable, "-W", "always", "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "packhouse.training.preprocessing\n"
    assert "DeprecationWarning: packhouse.preprocessing is now packhouse.training.preprocessing" in done.stderr


@pytest.mark.parametrize(
    "old, new",
    [
        ("infra.serving", "packhouse.serving"),
        ("infra.webhook", "infra.mlflow.webhook"),
        ("infra.again", "infra.worker.rerun"),
    ],
)
def test_a_program_that_0_1_documented_names_its_replacement_in_one_line(old, new):
    done = subprocess.run([sys.executable, "-m", old], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode
    assert len(done.stderr.splitlines()) == 1
    assert f"{old} is now {new}" in done.stderr
