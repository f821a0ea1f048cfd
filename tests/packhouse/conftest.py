"""Fixtures of packhouse's own tests: no server and no orchestrator."""

from __future__ import annotations

from pathlib import Path

import pytest

from packhouse.spec.model import Format
from tests.support.small_release import Small, built_once


@pytest.fixture(scope="session")
def release(run_folder: Path) -> Small:
    """A small real release. Not to be changed: `copied` gives one that may be."""
    return built_once(run_folder, seed=0)


@pytest.fixture(scope="session")
def onnx_release(run_folder: Path) -> Small:
    """The same in ONNX alone: it verifies without torch, in a third of the time."""
    return built_once(run_folder, seed=0, formats=[Format.ONNX])


@pytest.fixture(scope="session")
def other_release(run_folder: Path) -> Small:
    """Another training run of the same model, in a store of its own."""
    return built_once(run_folder, seed=1)
