"""The wheel of this clone, and environments that have it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import environments
from tests.support.environments import Environment


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return environments.wheel_of(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="session")
def bare(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """After `pip install packhouse`, without an extra."""
    return environments.make(tmp_path_factory.mktemp("bare"), wheel)


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """After `pip install 'packhouse[worker]'`."""
    return environments.make(tmp_path_factory.mktemp("worker"), wheel, "worker")
