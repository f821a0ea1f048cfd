"""Fixtures that all tests share: a Prefect server of our own, a home for each test, and small staged models."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import hypothesis
import pytest

from infra.sandbox.client import Sandbox
from infra.settings import settings
from infra.worker.context import WorkerContext, use
from tests.infra.registry.conftest import open_registry
from tests.servers.fixtures import mlflow_on_postgres_and_s3, mlflow_server, moto_server
from tests.servers.place import free_ports
from tests.servers.prefect import api_url, prefect_server
from tests.support.command import command
from tests.support.encoder import staged_encoder
from tests.support.imaging import releases_with_images
from tests.support.released import released, released_models
from tests.support.staged import ONNX_ONLY, Stage, stage

__all__ = [
    "Stage",
    "command",
    "mlflow_on_postgres_and_s3",
    "mlflow_server",
    "moto_server",
    "open_registry",
    "released",
    "released_models",
    "releases_with_images",
]

pytest_plugins = [f"tests.plugins.{name}" for name in ("run", "selection", "background", "quiet", "not_run")]

ROOT = Path(__file__).resolve().parent.parent

# Before anything imports Prefect: no telemetry, quiet, nothing persisted as a pickle. Formats are timed briefly: a test
# that is about latency sets its own time.
os.environ |= {
    "DO_NOT_TRACK": "1",
    "PACKHOUSE_LATENCY_S": "0.02",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_RESULTS_DEFAULT_SERIALIZER": "json",
    "PREFECT_LOGGING_LEVEL": "CRITICAL",
}


# No example has a time limit of its own: a loaded machine, or slipcover when it takes probes out, may pause for longer.
hypothesis.settings.register_profile("suite", deadline=None)
hypothesis.settings.load_profile("suite")

# A shell that starts a program with `&` in a script lets it ignore SIGINT, and so would all that the tests start: a
# Prefect worker, which ends by it, would have to be killed after half a minute, each time.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real Prefect server on loopback, for this session."""
    folder, port = tmp_path_factory.mktemp("prefect"), free_ports(1)[0]
    os.environ |= {"PREFECT_HOME": str(folder), "PREFECT_API_URL": api_url(port)}
    with prefect_server(folder, {}, port) as url:
        _settle_on_it()
        yield url


def _settle_on_it() -> None:
    """A test module that imports Prefect did so before there was a server. Prefect keeps the settings that it read
    then, and would start a second server, on the database of the first one."""
    from prefect.context import refresh_global_settings_context

    refresh_global_settings_context()


@pytest.fixture(scope="session")
def sandbox() -> Iterator[Sandbox]:
    """One warm fork server for all tests; jobs may also come from the tests."""
    with Sandbox(allowed=("tasks.", "tests."), readable=[ROOT / "tests", ROOT / "tasks"]) as shared:
        shared.start()
        yield shared


@contextmanager
def at_home(folder: Path, patch: pytest.MonkeyPatch, sandbox: Sandbox) -> Iterator[Path]:
    """A worker's home in this folder, for this process: store, cache, settings. Fixtures of a wider scope use it."""
    patch.setenv("PACKHOUSE_HOME", str(folder))
    patch.delenv("PACKHOUSE_STORE", raising=False)
    settings.cache_clear()
    use(WorkerContext(settings(), sandbox))
    yield folder
    use(None)
    settings.cache_clear()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sandbox: Sandbox) -> Iterator[Path]:
    """A worker's home of its own: store, cache, settings."""
    with at_home(tmp_path / "home", monkeypatch, sandbox) as folder:
        yield folder


def stager(folder: Path) -> Stage:
    """What `staged` gives, for a folder. Fixtures of a wider scope use it."""
    return partial(stage, sources=folder)


@pytest.fixture
def staged(tmp_path: Path) -> Stage:
    """`stage` into this test's folder. A test about other formats than ONNX passes `formats` or `every_format=True`."""
    return stager(tmp_path / "sources")


@pytest.fixture
def encoder(tmp_path: Path, request: pytest.FixtureRequest) -> str:
    """A tiny BERT of the transformers library, staged: integer inputs, two dynamic axes, a mask.

    The release has ONNX in fp32 and INT8. A test about other formats passes `formats` as an indirect parameter.
    """
    formats = getattr(request, "param", ONNX_ONLY | {"onnx-int8": "optional"})
    return staged_encoder(tmp_path / "sources" / "encoder", formats=formats)
