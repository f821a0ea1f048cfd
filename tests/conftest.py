"""Fixtures that all tests share: a Prefect server of our own, a home for each test, and small staged models."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from infra.sandbox import Sandbox
from infra.settings import settings
from infra.workshop import Workshop, use
from tests.servers.fixtures import mlflow_on_postgres_and_s3, mlflow_server, moto_server
from tests.servers.place import free_ports
from tests.servers.prefect import api_url, prefect_server

__all__ = ["mlflow_on_postgres_and_s3", "mlflow_server", "moto_server"]

pytest_plugins = [f"tests.plugins.{name}" for name in ("run", "selection", "background", "quiet", "not_run")]

ROOT = Path(__file__).resolve().parent.parent

# Before anything imports Prefect: no telemetry, quiet, nothing persisted as a pickle.
os.environ |= {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_RESULTS_DEFAULT_SERIALIZER": "json",
    "PREFECT_LOGGING_LEVEL": "CRITICAL",
}


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


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sandbox: Sandbox) -> Iterator[Path]:
    """A worker's home of its own: store, cache, settings."""
    folder = tmp_path / "home"
    monkeypatch.setenv("PACKHOUSE_HOME", str(folder))
    monkeypatch.delenv("PACKHOUSE_STORE", raising=False)
    settings.cache_clear()
    use(Workshop(settings(), sandbox))
    yield folder
    use(None)
    settings.cache_clear()


Stage = Callable[..., str]


@pytest.fixture
def staged(tmp_path: Path) -> Stage:
    """Stages a test architecture with seeded weights and samples; gives the source's URL. Keywords go to stage()."""

    def stage(architecture: str = "linear", name: str = "", **options: object) -> str:
        import torch

        import packhouse
        from packhouse import architectures

        torch.manual_seed(0)
        arguments = options.pop("arguments", {})
        model = architectures.build(f"test.{architecture}", arguments)
        samples = np.random.default_rng(0).normal(size=(24, 16)).astype(np.float32)
        given = {"inputs": {"x": samples}, "outputs": ["y"], "to": str(tmp_path / "sources" / (name or architecture))}
        return packhouse.stage(
            model,
            name=name or architecture,
            architecture=f"test.{architecture}",
            arguments=arguments,
            **(given | options),
        ).url

    return stage


@pytest.fixture
def encoder(tmp_path: Path) -> str:
    """A tiny BERT of the transformers library, staged: integer inputs, two dynamic axes, a mask."""
    import torch
    from packhouse_examples.encoder import encoder as build

    import packhouse

    config = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    config |= {"vocab_size": 100, "max_position_embeddings": 32}
    torch.manual_seed(0)
    random = np.random.default_rng(0)
    mask = np.ones((12, 8), np.int64)
    mask[1::2, 5:] = 0
    return packhouse.stage(
        build(**config),
        to=str(tmp_path / "sources" / "encoder"),
        name="encoder",
        architecture="examples.encoder",
        arguments=config,
        inputs={"input_ids": random.integers(0, 100, (12, 8)), "attention_mask": mask},
        outputs=["hidden"],
        axes={"input_ids": ["batch", "time"], "attention_mask": ["batch", "time"]},
        ranges={"batch": (1, 8), "time": (1, 16)},
        gates={"int8_speed": 0.01},
    ).url
