"""Servers that take long to start begin as soon as a selected test is known to need them, while other tests run."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from tests.plugins.run import folder_of_run, is_parallel
from tests.servers.shared import SLOW, Owner, ask

_OWNER = pytest.StashKey[Owner]()


def pytest_sessionstart(session: pytest.Session) -> None:
    if not is_parallel(session.config):
        session.config.stash[_OWNER] = Owner(folder_of_run(session.config), SLOW)


def pytest_collection_finish(session: pytest.Session) -> None:
    if not session.config.option.collectonly:
        for name in wanted(session.items):
            ask(folder_of_run(session.config), name)


def pytest_sessionfinish(session: pytest.Session) -> None:
    if owner := session.config.stash.get(_OWNER, None):
        owner.close()


def wanted(items: Iterable[pytest.Item]) -> set[str]:
    """Names of the servers that these tests use, by a fixture or as one of several stores."""
    return {name for item in items for name in SLOW if f"{name}_server" in _uses(item)}


def _uses(item: pytest.Item) -> set[str]:
    parameters = getattr(item, "callspec", None)
    values = parameters.params.values() if parameters else ()
    return {*getattr(item, "fixturenames", ()), *(f"{value}_server" for value in values if isinstance(value, str))}
