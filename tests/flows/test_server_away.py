"""A Prefect server that is away for a minute while a release is under way."""

from __future__ import annotations

import json
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterParentFlowRunId
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.release import release
from infra.worker.local_prefect import PATIENT
from packhouse.release.lookup import find
from packhouse.store import open_store
from packhouse.trust.verify import verify
from tests.servers.place import free_ports
from tests.servers.prefect import api_url, prefect_server
from tests.support import cluster

pytestmark = pytest.mark.flow

AWAY_S = 60.0


@pytest.fixture
def port() -> int:
    return free_ports(1)[0]


def test_a_server_that_is_away_for_a_minute_in_mid_run_costs_the_release_nothing(home, staged, tmp_path, port):
    folder = tmp_path / "server"
    folder.mkdir()
    environment = {"PREFECT_API_URL": api_url(port), "PACKHOUSE_HOME": str(home), **PATIENT}
    environment["PACKHOUSE_SOURCES"] = json.dumps([str(tmp_path / "sources")])
    source = staged("linear")
    with ExitStack() as last, temporary_settings({PREFECT_API_URL: api_url(port)}):
        with prefect_server(folder, {}, port):
            deployment = cluster.deploy(release, "away")
            last.enter_context(cluster.worker("away", environment, tmp_path / "worker.log"))
            run = cluster.start(deployment, sources=[source])
            cluster.until(run, lambda found: bool(found.state and found.state.is_running()))
            at_work(home)
        time.sleep(AWAY_S)
        with prefect_server(folder, {}, port):
            ended = cluster.until(run)
            assert (ended.state.name, ended.state.message) == ("Released", "1 released"), ended.state
            assert [each.state.name for each in models_of(run)] == ["Released"]
    store = open_store(str(home / "store"))
    assert verify(find(store, "linear@latest"))


def at_work(home: Path) -> None:
    """Until the model's files are in the worker's cache: the line is under way, and nothing is published yet."""
    deadline = time.monotonic() + cluster.PATIENCE_S
    while not any(path.is_file() for path in (home / "cache" / "sha256").rglob("*")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert not list((home / "store").rglob("manifest.json"))


def models_of(run):
    parent = FlowRunFilterParentFlowRunId(any_=[run])
    with cluster.client() as api:
        return api.read_flow_runs(flow_run_filter=FlowRunFilter(parent_flow_run_id=parent))
