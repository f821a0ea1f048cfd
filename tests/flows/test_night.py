"""A night and an operator's run, on a real server with real workers."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from prefect.client.schemas.filters import ArtifactFilter, FlowRunFilter, FlowRunFilterParentFlowRunId
from prefect.client.schemas.objects import StateType
from prefect.exceptions import PrefectHTTPStatusError
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings
from prefect.states import AwaitingRetry, Cancelling

from flows.audit import audit
from flows.ends import Status, audit_state, exit_status
from flows.nightly import nightly, shard
from flows.release import release, released
from packhouse.errors import NotFound
from packhouse.releases import find
from packhouse.store import open_store
from tasks.night import Work
from tests.flows import cluster
from tests.flows.cluster import client, deploy, start, until

pytestmark = [pytest.mark.flow, pytest.mark.usefixtures("api")]

POOL = "night"


@pytest.fixture
def workers(home: Path, tmp_path: Path) -> Iterator[list[cluster.Worker]]:
    """Two workers of one pool, and the deployments of a night on it."""
    for flow in (release, nightly, audit):
        deploy(flow, POOL)
    environment = {"PACKHOUSE_HOME": str(home), "PACKHOUSE_SOURCES": json.dumps([str(tmp_path / "sources")])}
    with (
        cluster.worker(POOL, environment, tmp_path / "worker-1.log") as one,
        cluster.worker(POOL, environment, tmp_path / "worker-2.log") as two,
    ):
        yield [one, two]


def children_of(run: Any) -> list[Any]:
    with client() as api:
        parent = FlowRunFilterParentFlowRunId(any_=[run.id])
        return api.read_flow_runs(flow_run_filter=FlowRunFilter(parent_flow_run_id=parent))


def artifacts_of(run: Any) -> dict[str, Any]:
    with client() as api:
        found = api.read_artifacts(artifact_filter=ArtifactFilter(flow_run_id={"any_": [run.id]}))
    return {artifact.key: artifact.data for artifact in found}


def test_a_night_releases_what_changed_on_any_worker_isolates_the_bad_one_and_names_it(home, staged, tmp_path, workers):
    released([staged("linear", name="unchanged")])
    for number in range(3):
        staged("linear", name=f"changed-{number}")
    staged("random", name="bad")
    begun = start("nightly/nightly", shard_models=1, shard_minutes=0.01)
    until(begun, lambda found: found.state.is_running())
    assert until(start("nightly/nightly")).state.is_cancelled(), "two nights at once"
    run = until(begun)
    assert (run.state.type, run.state.name) == (StateType.FAILED, "Partial"), run.state.message
    assert "3 released, 1 unchanged, 1 refused" in run.state.message
    assert "refused" in run.state.message
    assert "not deterministic" in run.state.message

    store = open_store(str(home / "store"))
    for number in range(3):
        assert find(store, f"changed-{number}@latest")
    shards = children_of(run)
    assert len(shards) == 4
    assert all(len(json.dumps(shard.parameters)) < 4096 for shard in shards)
    assert {shard.state.name for shard in shards} == {"Released", "Refused"}
    assert not list((home / "store" / "_work").rglob("*.json")), "what runs leave for others is taken away"

    artifacts = artifacts_of(run)
    rows = json.loads(artifacts["night"])
    assert {row["model"] for row in rows if row["outcome"] == "released"} == {f"changed-{n}" for n in range(3)}
    assert all(row["seconds"] > 0 and row["bytes"] > 0 for row in rows if row["outcome"] == "released")
    assert "## Refused" in artifacts["night-report"]

    again = until(start("nightly/nightly"))
    assert "3 unchanged" not in again.state.message
    assert "4 unchanged, 1 refused" in again.state.message


def test_a_models_run_says_in_the_run_list_how_it_ended_and_shows_its_report(home, staged, workers):
    run = until(start("release/release", sources=[staged("linear"), staged("random")]))
    assert run.name.startswith("release sources/linear and 1 more")
    assert (run.state.type, run.state.name) == (StateType.FAILED, "Partial")
    models = {child.state.name: child for child in children_of(run)}
    assert models["Released"].name.startswith("released linear/")
    assert "sources/linear" in models["Released"].name
    assert models["Refused"].name.startswith("refused ")
    assert "not deterministic" in models["Refused"].name
    assert models["Refused"].state.type is StateType.FAILED
    shown = artifacts_of(models["Released"])
    assert shown.keys() >= {"linear-report", "linear-parity", "linear-latency"}
    assert "not run: there is no work pool 'cuda'" in shown["linear-report"] or "no worker" in shown["linear-report"]
    assert artifacts_of(run)["progress"] == 100.0


def test_a_failed_model_is_tried_again_from_the_ui_and_the_others_cost_nothing(home, staged, tmp_path, workers):
    """Retry is what the button of the same name asks of the API."""
    good, late = staged("linear"), staged("linear", name="late")
    spec = Path(late.removeprefix("file://")) / "package.toml"
    spec.rename(tmp_path / "aside")
    identity = start("release/release", sources=[good, late])
    run = until(identity)
    assert run.state.name == "Partial", run.state.message
    assert "no package.toml here" in run.state.message
    (tmp_path / "aside").rename(spec)
    with client() as api:
        api.set_flow_run_state(identity, AwaitingRetry(), force=True)
    run = until(identity, lambda found: found.run_count > 1 and found.state.is_final())
    assert run.state.type is StateType.COMPLETED, run.state.message
    assert "1 released, 1 unchanged" in run.state.message
    assert find(open_store(str(home / "store")), "late@latest")


def test_a_run_that_is_cancelled_takes_its_children_with_it(home, staged, workers):
    hanging = staged("hang", formats={"torchscript": "optional", "torchscript-int8": "off", "onnx-int8": "off"})
    identity = start("release/release", sources=[hanging])
    family = wait_for_children(workers)
    with client() as api:
        api.set_flow_run_state(identity, Cancelling())
    assert until(identity).state.type is StateType.CANCELLED
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and any(process.is_running() for process in family):
        time.sleep(0.2)
    assert [process for process in family if process.is_running()] == []
    assert not list((home / "store").rglob("record.json"))


def wait_for_children(workers: list[cluster.Worker]) -> list[psutil.Process]:
    """The processes in which a model is being traced, once there are any: grandchildren of the fork server."""
    deadline = time.monotonic() + cluster.PATIENCE_S
    while time.monotonic() < deadline:
        for worker in workers:
            with suppress(psutil.NoSuchProcess):  # a short job has ended while we looked
                below = psutil.Process(worker.process.pid).children(recursive=True)
                servers = [each for each in below if "infra.forkserver" in " ".join(each.cmdline())]
                if jobs := [job for each in servers for job in each.children() if job.is_running()]:
                    return [*servers, *jobs]
        time.sleep(0.2)
    raise TimeoutError("no child of the sandbox was seen")


def test_parameters_out_of_range_are_refused_by_the_server_before_any_run(workers):
    for deployment, parameters in (
        ("nightly/nightly", {"shard_models": 0}),
        ("release/release", {"sources": []}),
        ("release/release", {"sources": ["x"], "channel": "Not A Channel"}),
    ):
        with pytest.raises(PrefectHTTPStatusError, match=r"409|422"):
            start(deployment, **parameters)


def test_a_source_outside_the_allowed_prefixes_is_refused_in_one_line(home, staged, tmp_path, workers):
    outside = staged("linear", to=str(tmp_path / "elsewhere" / "linear"))
    run = until(start("release/release", sources=[outside]))
    assert (run.state.type, run.state.name) == (StateType.FAILED, "Refused")
    assert "elsewhere" in run.state.message
    assert not (home / "store" / "linear").exists()


def test_the_audit_proves_what_channels_point_at_and_names_what_rotted(home, staged, workers):
    released([staged("linear"), staged("linear", name="rotten")])
    run = until(start("audit/audit"))
    assert (run.state.name, run.state.message) == ("Verified", "2 releases verify")
    (weights,) = (home / "store" / "rotten").rglob("weights.safetensors")
    weights.chmod(0o600)
    weights.write_bytes(weights.read_bytes()[:-1] + b"\0")
    run = until(start("audit/audit"))
    assert (run.state.type, run.state.name) == (StateType.FAILED, "Rotten")
    assert "rotten/" in run.state.message
    assert "sha256 differs" in run.state.message


def decide(identity: Any, **answer: Any) -> None:
    until(identity, lambda found: found.state.is_paused() or found.state.is_final())
    with client() as api:
        api.resume_flow_run(identity, run_input={"comment": "", **answer})


@pytest.fixture
def mlflow_client(mlflow_server, monkeypatch):
    """Of the MLflow that the workers register in; they are started after it."""
    monkeypatch.setenv("PACKHOUSE_MLFLOW_URI", mlflow_server)
    from mlflow import MlflowClient

    return MlflowClient(mlflow_server)


@pytest.mark.server
def test_production_waits_for_a_person_who_may_say_no_and_is_asked_again(home, mlflow_client, staged, workers):
    """So does its alias in MLflow; the version is there before."""
    source = staged("linear", gates={"approve": True}, mlflow="approved")
    store = open_store(str(home / "store"))
    identity = start("release/release", sources=[source], channel="production")
    decide(identity, approve=False, by="Ada", comment="not on a Friday")
    run = until(identity)
    assert (run.state.type, run.state.name) == (StateType.FAILED, "Refused")
    assert "Ada said no: not on a Friday" in run.state.message
    with pytest.raises(NotFound, match="no such channel"):
        find(store, "linear@production")
    (version,) = mlflow_client.search_model_versions("name='approved'")
    assert mlflow_client.get_registered_model("approved").aliases == {}

    identity = start("release/release", sources=[source], channel="production")
    decide(identity, approve=True, by="Ada")
    run = until(identity)
    assert run.state.type is StateType.COMPLETED, run.state.message
    assert find(store, "linear@production")
    assert mlflow_client.get_model_version_by_alias("approved", "production").version == version.version

    run = until(start("release/release", sources=[source], channel="latest"))
    assert run.state.type is StateType.COMPLETED, "other channels are never asked about"


def test_a_night_waits_for_no_person_and_names_who_must_be_asked(home, staged, workers):
    staged("linear", name="guarded", gates={"approve": True})
    staged("linear", name="free")
    run = until(start("nightly/nightly", channel="production"))
    assert run.state.name == "Partial", run.state.message
    assert "1 released, 1 waiting" in run.state.message
    assert "start the deployment `release` with its source" in run.state.message
    assert "## Waiting for a person" in artifacts_of(run)["night-report"]
    assert find(open_store(str(home / "store")), "free@production")


def test_a_shard_that_can_not_even_be_started_costs_its_own_models_and_says_so(home):
    members = [Work(source=f"s3://b/m{number}", model=f"m{number}", cost=1.0) for number in range(2)]
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api", PREFECT_CLIENT_MAX_RETRIES: 0}):
        ends = shard.fn("m0", members, "latest", 1.0)
    assert [(end.source, end.status) for end in ends] == [(each.source, Status.FAILED) for each in members]
    assert "Connect" in ends[0].reason


def test_a_night_that_is_tried_again_starts_its_shards_again(home, staged, tmp_path, workers):
    source = Path(staged("linear", name="late").removeprefix("file://"))
    (weights,) = (path for path in source.iterdir() if path.name.startswith("weights"))
    hidden = weights.rename(tmp_path / "elsewhere")
    run = until(start("nightly/nightly"))
    assert run.state.name == "Refused", run.state.message
    hidden.rename(weights)
    with client() as api:
        api.set_flow_run_state(run.id, AwaitingRetry(), force=True)
    again = until(run.id, lambda found: found.run_count == 2 and found.state.is_final())
    assert again.state.name == "Released", again.state.message


def test_an_audit_that_could_not_ask_says_what_it_knows_of_the_others():
    assert audit_state({"a/1": "", "b/1": ""}, {}).name == "Verified"
    away = audit_state({"a/1": ""}, {"b/1": "could not be proven: the store does not answer"})
    assert (away.name, away.type) == ("Unavailable", StateType.FAILED)
    assert "b/1: could not be proven" in away.message
    assert audit_state({"a/1": "sha256 differs"}, {"b/1": "away"}).name == "Rotten"


def test_nobody_is_asked_where_nobody_can_answer(home, staged):
    (end,) = released([staged("linear", gates={"approve": True})], "production")
    assert end.status is Status.WAITING
    assert "in the Prefect UI" in end.line()
    assert exit_status([end]) == 2
