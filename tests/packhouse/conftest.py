"""Fixtures of packhouse's own tests: no server and no orchestrator."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.packhouse.small_release import Small, build

Build = Callable[[int], Small]


@pytest.fixture(scope="session")
def release(tmp_path_factory: pytest.TempPathFactory) -> Small:
    """A small real release. Not to be changed: `copied` gives one that may be."""
    return build(tmp_path_factory.mktemp("store"), tmp_path_factory.mktemp("work"), seed=0)


@pytest.fixture(scope="session")
def other_release(tmp_path_factory: pytest.TempPathFactory) -> Small:
    """Another training run of the same model, in a store of its own."""
    return build(tmp_path_factory.mktemp("other-store"), tmp_path_factory.mktemp("other-work"), seed=1)
