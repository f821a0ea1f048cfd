"""The test servers as fixtures of the whole session. Where one cannot run, its tests are skipped with the reason.

With PACKHOUSE_TEST_SERVERS=required they fail instead, so that a green run means that all of them ran.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pytest

from tests.servers.ceph import ceph
from tests.servers.mlflow import mlflow
from tests.servers.moto import moto
from tests.servers.place import CannotRunError, Endpoint
from tests.servers.swift import swift


@pytest.fixture(scope="session")
def ceph_server() -> Iterator[Endpoint]:
    yield from _or_skip(ceph)


@pytest.fixture(scope="session")
def swift_server() -> Iterator[Endpoint]:
    yield from _or_skip(swift)


@pytest.fixture(scope="session")
def moto_server() -> Iterator[Endpoint]:
    yield from _or_skip(moto)


@pytest.fixture(scope="session")
def mlflow_server() -> Iterator[str]:
    """Its URL. Its webhooks may go to loopback, by http."""
    environment = ("MLFLOW_WEBHOOK_ALLOWED_SCHEMES=http,https", "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS=true")
    with mlflow(environment=environment) as url:
        yield url


def _or_skip(start: Callable[[], AbstractContextManager[Endpoint]]) -> Iterator[Endpoint]:
    server = start()
    try:
        endpoint = server.__enter__()
    except CannotRunError as error:
        if os.environ.get("PACKHOUSE_TEST_SERVERS") == "required":
            raise
        pytest.skip(f"NOT TESTED on {start.__name__}: {error}")
    try:
        yield endpoint
    finally:
        server.__exit__(None, None, None)
