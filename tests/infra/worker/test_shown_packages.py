"""Which packages of architectures a worker tells its sandbox about."""

from __future__ import annotations

import os

import pytest

from infra.sandbox.client import ROOT
from infra.worker.context import shown_packages


@pytest.mark.parametrize(
    "path, shown",
    [("", []), (str(ROOT), []), (os.pathsep.join([str(ROOT), str(ROOT / "examples")]), ["packhouse_examples"])],
    ids=["none", "the worker's own code", "a team's package"],
)
def test_a_package_that_only_pythonpath_shows_is_told_to_the_sandbox(monkeypatch, path, shown):
    monkeypatch.setenv("PYTHONPATH", path)
    assert [package.name for package in shown_packages()] == shown
