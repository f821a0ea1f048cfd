"""The test servers as fixtures of the whole session. Where one cannot run, its tests are skipped with the reason.

With PACKHOUSE_TEST_SERVERS=required they fail instead, so that a green run means that all of them ran.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import TypeVar

import pytest

from tests.servers.ceph import ceph
from tests.servers.mlflow import mlflow
from tests.servers.moto import moto
from tests.servers.place import CannotRunError, Endpoint
from tests.servers.swift import swift

T = TypeVar("T")


@pytest.fixture(scope="session")
def ceph_server() -> Iterator[Endpoint]:
    yield from or_skip(ceph)


@pytest.fixture(scope="session")
def swift_server() -> Iterator[Endpoint]:
    yield from or_skip(swift)


@pytest.fixture(scope="session")
def moto_server() -> Iterator[Endpoint]:
    yield from or_skip(moto)


@pytest.fixture(scope="session")
def mlflow_server() -> Iterator[str]:
    """Its URL. Its webhooks may go to loopback, by http."""
    environment = ("MLFLOW_WEBHOOK_ALLOWED_SCHEMES=http,https", "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS=true")
    with mlflow(environment=environment) as url:
        yield url


def or_skip(start: Callable[[], AbstractContextManager[T]], name: str = "") -> Iterator[T]:
    """For a fixture: the server, or the reason why its tests are not run."""
    server = start()
    try:
        endpoint = server.__enter__()
    except CannotRunError as error:
        if os.environ.get("PACKHOUSE_TEST_SERVERS") == "required":
            raise
        pytest.skip(f"NOT TESTED on {name or start.__name__}: {error}")
    try:
        yield endpoint
    finally:
        server.__exit__(None, None, None)
