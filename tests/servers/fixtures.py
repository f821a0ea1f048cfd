"""The test servers as fixtures of the whole session. Where one cannot run, its tests are skipped with the reason.

With PACKHOUSE_TEST_SERVERS=required they fail instead, so that a green run means that all of them ran. Ceph and Swift,
which take long to start, are shared by all processes of the run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TypeVar

import pytest

from tests.servers.mlflow import mlflow
from tests.servers.mode import servers
from tests.servers.moto import moto
from tests.servers.place import CannotRunError, Endpoint
from tests.servers.postgres import postgres
from tests.servers.shared import shared

T = TypeVar("T")


@pytest.fixture(scope="session")
def ceph_server(run_folder: Path) -> Iterator[Endpoint]:
    yield from or_skip(lambda: shared("ceph", run_folder), "ceph")


@pytest.fixture(scope="session")
def swift_server(run_folder: Path) -> Iterator[Endpoint]:
    yield from or_skip(lambda: shared("swift", run_folder), "swift")


@pytest.fixture(scope="session")
def moto_server() -> Iterator[Endpoint]:
    yield from or_skip(moto)


@pytest.fixture(scope="session")
def mlflow_on_postgres_and_s3(moto_server: Endpoint) -> Iterator[str]:
    """Its URL. Only the server knows the S3 server and its keys."""

    @contextmanager
    def started() -> Iterator[str]:
        s3 = {"AWS_ACCESS_KEY_ID": moto_server.access_key, "AWS_SECRET_ACCESS_KEY": moto_server.secret_key}
        s3 |= {"MLFLOW_S3_ENDPOINT_URL": moto_server.url, "AWS_DEFAULT_REGION": "us-east-1"}
        options = ("--artifacts-destination", "s3://mlflow/artifacts", "--backend-store-uri")
        environment = [f"{name}={value}" for name, value in s3.items()]
        moto_server.client().create_bucket(Bucket="mlflow")
        with postgres() as database, mlflow(*options, database, environment=environment) as url:
            yield url

    yield from or_skip(started, "MLflow on PostgreSQL and S3")


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
        if servers() == "required":
            raise
        pytest.skip(f"NOT TESTED on {name or start.__name__}: {error}")
    try:
        yield endpoint
    finally:
        server.__exit__(None, None, None)
