"""What `import packhouse` gives: its public names, each imported when it is first used, and nothing heavy."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import packhouse
from packhouse.consume import fetch, session
from packhouse.training import samples, source, staging


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
