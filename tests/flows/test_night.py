"""A night and an operator's run, on a real server with real workers."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
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
from flows.nightly import nightly, shard
from flows.release import release, released
from flows.run_result import Status, audit_state, exit_status
from infra.settings import settings
from infra.worker.context import WorkerContext, use
from packhouse.errors import NotFound
from packhouse.release.lookup import find
from packhouse.store import open_store
from tasks.night.plan import Work
from tests.conftest import at_home, stager
from tests.support import cluster
from tests.support.cluster import client, deploy, start, until

pytestmark = [
    pytest.mark.flow,
    pytest.mark.usefixtures("api"),
    pytest.mark.timeout(1500),
]  # a whole night is one fixture

POOL = "night"


@pytest.fixture(scope="module")
def workers(api: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[cluster.Worker]]:
    """Two workers of one pool. What they run for a test is told its home by the deployments, with `deployed`."""
    cluster.pool(POOL)
    folder = tmp_path_factory.mktemp("workers")
    environment = {"PACKHOUSE_HOME": str(folder / "home")}
    with (
        cluster.worker(POOL, environment, folder / "worker-1.log") as one,
        cluster.worker(POOL, environment, folder / "worker-2.log") as two,
    ):
        yield [one, two]


def deployed(home: Path, sources: Path, **more: str) -> None:
    """The deployments of a night: from now on, their runs work in this home and on these sources."""
    environment = {"PACKHOUSE_HOME": str(home), "PACKHOUSE_SOURCES": json.dumps([str(sources)]), **more}
    for flow in (release, nightly, audit):
        deploy(flow, POOL, environment)


@pytest.fixture
def site(home: Path, tmp_path: Path, workers: list[cluster.Worker]) -> None:
    """The deployments, for this test's home and sources."""
    deployed(home, tmp_path / "sources")


def children_of(run: Any) -> list[Any]:
    with client() as api:
        parent = FlowRunFilterParentFlowRunId(any_=[run.id])
        return api.read_flow_runs(flow_run_filter=FlowRunFilter(parent_flow_run_id=parent))


def artifacts_of(run: Any) -> dict[str, Any]:
    with client() as api:
        found = api.read_artifacts(artifact_filter=ArtifactFilter(flow_run_id={"any_": [run.id]}))
    return {artifact.key: artifact.data for artifact in found}


def tried_again(run: Any) -> Any:
    """Its end, after what the button Retry in the UI asks of the API."""
    with client() as api:
        api.set_flow_run_state(run.id, AwaitingRetry(), force=True)
    return until(run.id, lambda found: found.run_count > run.run_count and found.state.is_final())


@dataclass(frozen=True)
class Tried:
    """A run that ended, what there was then, and its end after it was tried again with better sources."""

    home: Path
    first: Any
    children: list[Any]
    artifacts: dict[str, Any]
    channels: set[str]
    left: list[Path]
    again: Any


def looked_at(home: Path, run: Any, mend: Callable[[], object]) -> Tried:
    """Looks at an ended run, mends its sources and tries it again."""
    channels = {path.parent.parent.name for path in (home / "store").glob("*/channels/*")}
    left = list((home / "store" / "_work").rglob("*.json"))
    children, artifacts = children_of(run), artifacts_of(run)
    mend()
    return Tried(home, run, children, artifacts, channels, left, tried_again(run))


CHANGED = ("changed", "improved")
TROUBLED = ("bad", "guarded", "late")
"""Equal costs are dealt out in the order of names: these are one shard, also when the night is tried again."""


@pytest.fixture(scope="module")
def night(workers, sandbox, tmp_path_factory) -> Tried:
    """A night of one unchanged model, two that changed, a bad one, one that a person must approve, and one whose
    weights are missing until the night is tried again. Another night is started meanwhile, and must be cancelled."""
    folder = tmp_path_factory.mktemp("night")
    home, stage = folder / "home", stager(folder / "sources")
    with pytest.MonkeyPatch.context() as patch, at_home(home, patch, sandbox):
        released([stage("linear", name="unchanged")], "production")
    for name in CHANGED:
        stage("linear", name=name)
    stage("random", name="bad")
    stage("linear", name="guarded", gates={"approve": True})
    late = Path(stage("linear", name="late", arguments={"hidden": 8}).removeprefix("file://"))  # no other's weights
    (weights,) = (path for path in late.iterdir() if path.name.startswith("weights"))
    hidden = weights.rename(folder / "elsewhere")

    deployed(home, folder / "sources")
    begun = start("nightly/nightly", channel="production", shard_models=3, shard_minutes=0.25)
    until(begun, lambda found: found.state.is_running())
    assert until(start("nightly/nightly")).state.is_cancelled(), "two nights at once"
    return looked_at(home, until(begun), lambda: hidden.rename(weights))


def names_in(shard: Any) -> tuple[str, ...]:
    return tuple(Path(source).name for source in shard.parameters["sources"])


def test_a_night_releases_what_changed_on_any_worker_isolates_the_bad_ones_and_names_them(night):
    state = night.first.state
    assert (state.type, state.name) == (StateType.COMPLETED, "Partial"), state.message
    assert "2 released, 1 unchanged, 1 waiting, 2 refused" in state.message
    assert "not deterministic" in state.message
    assert night.channels == {"unchanged", *CHANGED}
    store = open_store(str(night.home / "store"))
    assert all(find(store, f"{name}@production") for name in CHANGED)
    assert all(len(json.dumps(shard.parameters)) < 4096 for shard in night.children)
    assert {names_in(shard): shard.state.name for shard in night.children} == {
        CHANGED: "Released",
        TROUBLED: "Partial",
    }
    assert not night.left, "what runs leave for others is taken away"

    rows = json.loads(night.artifacts["night"])
    assert {row["model"] for row in rows if row["outcome"] == "released"} == {*CHANGED}
    assert all(row["seconds"] > 0 and row["bytes"] > 0 for row in rows if row["outcome"] == "released")
    assert "## Refused" in night.artifacts["night-report"]


def test_a_night_that_is_tried_again_starts_its_shards_again_and_what_was_released_costs_none(night):
    assert "late" not in night.channels
    assert night.again.run_count == 2
    assert "1 released, 3 unchanged, 1 waiting, 1 refused" in night.again.state.message
    assert find(open_store(str(night.home / "store")), "late@production")
    before = {shard.id: shard for shard in night.children}
    (again,) = [shard for shard in children_of(night.again) if shard.id not in before]
    assert again.parameters in [shard.parameters for shard in before.values()], "not the same run for the same work"
    assert names_in(again) == TROUBLED


def test_a_night_waits_for_no_person_and_names_who_must_be_asked(night):
    assert "start the deployment `release` with its source" in night.first.state.message
    assert "## Waiting for a person" in night.artifacts["night-report"]
    assert "guarded" not in night.channels


@pytest.fixture(scope="module")
def operated(workers, sandbox, tmp_path_factory) -> Tried:
    """A run of an operator over a good model, one that is not deterministic and one without a package.toml, and the
    same run tried again once both are mended."""
    folder = tmp_path_factory.mktemp("operated")
    home, stage = folder / "home", stager(folder / "sources")
    sources = [stage("linear"), stage("random"), stage("linear", name="late")]
    spec = folder / "sources" / "late" / "package.toml"
    hidden = spec.rename(folder / "aside")

    def mend() -> None:
        hidden.rename(spec)
        stage("linear", name="random")

    deployed(home, folder / "sources")
    return looked_at(home, until(start("release/release", sources=sources)), mend)


def test_a_models_run_says_in_the_run_list_how_it_ended_and_shows_its_report(operated):
    run = operated.first
    assert run.name.startswith("release sources/linear and 2 more")
    assert (run.state.type, run.state.name) == (StateType.COMPLETED, "Partial")
    models = {Path(child.parameters["source"]).name: child for child in operated.children}
    good, bad = models["linear"], models["random"]
    assert good.state.name == "Released"
    assert good.name.startswith("released linear/")
    assert "sources/linear" in good.name
    assert (bad.state.type, bad.state.name) == (StateType.FAILED, "Refused")
    assert bad.name.startswith("refused ")
    assert "not deterministic" in bad.name
    shown = artifacts_of(good)
    assert shown.keys() >= {"linear-report", "linear-parity", "linear-latency"}
    assert "not run: there is no work pool 'cuda'" in shown["linear-report"] or "no worker" in shown["linear-report"]
    assert operated.artifacts["progress"] == 100.0


def test_a_failed_model_is_tried_again_from_the_ui_and_the_others_cost_nothing(operated):
    assert operated.first.state.name == "Partial", operated.first.state.message
    assert "no package.toml here" in operated.first.state.message
    assert operated.channels == {"linear"}
    again = operated.again.state
    assert again.type is StateType.COMPLETED, again.message
    assert "2 released, 1 unchanged" in again.message
    assert find(open_store(str(operated.home / "store")), "late@latest")


def test_a_run_that_is_cancelled_takes_its_children_with_it(home, staged, site, workers):
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
                servers = [each for each in below if "infra.sandbox.server" in " ".join(each.cmdline())]
                if jobs := [job for each in servers for job in each.children() if job.is_running()]:
                    return [*servers, *jobs]
        time.sleep(0.2)
    raise TimeoutError("no child of the sandbox was seen")


def test_parameters_out_of_range_are_refused_by_the_server_before_any_run(tmp_path):
    deployed(tmp_path / "home", tmp_path / "sources")
    for deployment, parameters in (
        ("nightly/nightly", {"shard_models": 0}),
        ("release/release", {"sources": []}),
        ("release/release", {"sources": ["x"], "channel": "Not A Channel"}),
    ):
        with pytest.raises(PrefectHTTPStatusError, match=r"409|422"):
            start(deployment, **parameters)


def test_a_source_outside_the_allowed_prefixes_is_refused_in_one_line(home, staged, tmp_path, sandbox, monkeypatch):
    monkeypatch.setenv("PACKHOUSE_SOURCES", json.dumps([str(tmp_path / "sources")]))
    settings.cache_clear()
    use(WorkerContext(settings(), sandbox))
    outside = staged("linear", to=str(tmp_path / "elsewhere" / "linear"))
    state = release([outside], return_state=True)
    assert (state.type, state.name) == (StateType.FAILED, "Refused")
    assert "elsewhere" in state.message
    assert not (home / "store" / "linear").exists()


def test_the_audit_proves_what_channels_point_at_and_names_what_rotted(home, staged, site):
    released([staged("linear"), staged("linear", name="rotten")])
    state = audit(return_state=True)
    assert (state.name, state.message) == ("Verified", "2 releases verify")
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
def mlflow_client(mlflow_server, home, site, tmp_path, monkeypatch):
    """Of the MLflow that this process and the runs of the deployments register in."""
    monkeypatch.setenv("PACKHOUSE_MLFLOW_URI", mlflow_server)
    settings.cache_clear()
    deployed(home, tmp_path / "sources", PACKHOUSE_MLFLOW_URI=mlflow_server)
    from mlflow import MlflowClient

    return MlflowClient(mlflow_server)


@pytest.mark.server
def test_production_waits_for_a_person_who_may_say_no_and_is_asked_again(home, mlflow_client, staged):
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

    (end,) = released([source], "latest")
    assert end.status.good, "other channels are never asked about"
    assert find(store, "linear@latest")


def test_a_shard_that_can_not_even_be_started_costs_its_own_models_and_says_so(home):
    members = [Work(source=f"s3://b/m{number}", model=f"m{number}", cost=1.0) for number in range(2)]
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api", PREFECT_CLIENT_MAX_RETRIES: 0}):
        ends = shard.fn("m0", members, "latest", 1.0)
    assert [(end.source, end.status) for end in ends] == [(each.source, Status.FAILED) for each in members]
    assert "Connect" in ends[0].reason


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
