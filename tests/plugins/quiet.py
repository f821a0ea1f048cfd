"""Tests that measure time run alone, also where several processes run tests: @pytest.mark.quiet.

A test holds a lock that it shares with the others; a quiet one holds it alone. A second lock, the door, lets no test
begin while a quiet one waits, which would otherwise wait for ever.
"""

from __future__ import annotations

import fcntl
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.plugins.run import folder_of_run, is_parallel


@pytest.hookimpl(wrapper=True, tryfirst=True)  # outside of the time limit, which a waiting test does not use up
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    if not is_parallel(item.config):
        return (yield)
    with _inside(folder_of_run(item.config), alone=item.get_closest_marker("quiet") is not None):
        return (yield)


@contextmanager
def _inside(folder: Path, *, alone: bool) -> Iterator[None]:
    with ExitStack() as room:
        with _locked(folder / "door.lock", fcntl.LOCK_EX):
            room.enter_context(_locked(folder / "room.lock", fcntl.LOCK_EX if alone else fcntl.LOCK_SH))
        yield


@contextmanager
def _locked(path: Path, how: int) -> Iterator[None]:
    """Unlocked by name: a forked child that outlives its test has the file open, too."""
    with path.open("w") as lock:
        fcntl.flock(lock, how)
        try:
            yield
        finally:
            fcntl.flock(lock, fcntl.LOCK_UN)
