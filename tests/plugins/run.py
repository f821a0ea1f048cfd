"""One run of the suite: the folder that its processes share, and which of them owns it."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest

LONGEST = ("flows", "faults", "deploy", "infra")
"""Folders of tests, by the time that their files take."""
_FOLDER = pytest.StashKey[Path]()
_VARIABLE = "PACKHOUSE_TEST_RUN"


def is_parallel(config: pytest.Config) -> bool:
    """Whether this process is one of several that run tests."""
    return hasattr(config, "workerinput")


def folder_of_run(config: pytest.Config) -> Path:
    return config.stash[_FOLDER]


@pytest.fixture(scope="session")
def run_folder(pytestconfig: pytest.Config) -> Path:
    return folder_of_run(pytestconfig)


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """The owner makes the folder. pytest-xdist's workers get its name with their environment."""
    if not is_parallel(config):
        os.environ[_VARIABLE] = tempfile.mkdtemp(prefix="packhouse-test-run-")
    config.stash[_FOLDER] = Path(os.environ[_VARIABLE])


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    if not is_parallel(config):
        shutil.rmtree(folder_of_run(config))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Processes take files whole (--dist loadfile); those that take longest come first."""
    if is_parallel(config):
        items.sort(key=_rank)


def _rank(item: pytest.Item) -> int:
    folders = [folder for folder in LONGEST if f"/tests/{folder}/" in item.path.as_posix()]
    return LONGEST.index(folders[0]) if folders else len(LONGEST)
