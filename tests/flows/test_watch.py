"""Training runs of a real MLflow server become release runs of a real Prefect server: each once, and none is missed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from prefect import State
from prefect.client.schemas.filters import ArtifactFilter, FlowRunFilter, FlowRunFilterIdempotencyKey
from prefect.client.schemas.objects import StateType

from flows.release import release
from flows.watch import watch
from infra.mlflow.tracking import REFUSED, RELEASE_RUN, SOURCE, Tracking
from infra.settings import settings
from packhouse.digest import digest_bytes
from packhouse.errors import Refused, Unavailable
from packhouse.training.announce import identity
from tasks.night.watch import look, started_release
from tests.servers.mlflow import mlflow
from tests.servers.place import free_ports
from tests.support import cluster
from tests.support.cluster import client

pytestmark = [pytest.mark.flow, pytest.mark.server, pytest.mark.usefixtures("api")]


class Training:
    """What training scripts do: runs in an experiment of their own, and sources below one folder."""

    def __init__(self, url: str, folder: Path) -> None:
        from mlflow import MlflowClient

        self.client = MlflowClient(url)
        self.folder = folder
        self.experiment = f"training-{uuid4()}"
        self.id = self.client.create_experiment(self.experiment)

    def stage(self, name: str, words: str = "schema = 1\n") -> str:
        (self.folder / name).mkdir(parents=True, exist_ok=True)
        (self.folder / name / "package.toml").write_text(words)
        return f"file://{self.folder / name}"

    def run(self, source: str | None, *, ended: bool = True, **times: int) -> str:
        tags = {} if source is None else {SOURCE: source}
        made: str = self.client.create_run(self.id, start_time=times.get("start_time"), tags=tags).info.run_id
        if ended:
            self.client.set_terminated(made, end_time=times.get("end_time"))
        return made

    def tags(self, run: str) -> dict[str, str]:
        kept = (RELEASE_RUN, REFUSED)
        return {name: value for name, value in self.client.get_run(run).data.tags.items() if name in kept}


@pytest.fixture
def configured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[[str], None]]:
    """Sets this worker's MLflow. Its sources lie below one folder, and in a store that is away."""
    (port,) = free_ports(1)
    away = f"s3://away/sources?endpoint=http://127.0.0.1:{port}"
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "any")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "any")
    monkeypatch.setenv("PACKHOUSE_SOURCES", json.dumps([str(tmp_path / "sources"), away]))

    def configure(url: str) -> None:
        monkeypatch.setenv("PACKHOUSE_MLFLOW_URI", url)
        settings.cache_clear()

    cluster.deploy(release, "no-worker-here")
    yield configure
    settings.cache_clear()


@pytest.fixture
def training(mlflow_server: str, configured: Callable[[str], None], tmp_path: Path) -> Training:
    configured(mlflow_server)
    return Training(mlflow_server, tmp_path / "sources")


def watched(training: Training, **options: Any) -> State[Any]:
    return watch([training.experiment], return_state=True, **options)


def release_runs(source: str) -> list[Any]:
    """The runs of `release` that this source has met, as it is now."""
    digest = digest_bytes((Path(source.removeprefix("file://")) / "package.toml").read_bytes())
    key = FlowRunFilterIdempotencyKey(any_=[str(identity(source, digest))])
    with client() as api:
        return api.read_flow_runs(flow_run_filter=FlowRunFilter(idempotency_key=key))


def test_a_finished_run_with_a_source_is_released_once_and_says_by_which_run(training):
    source = training.stage("churn")
    run = training.run(source)
    state = watched(training)
    assert (state.type, state.name, state.message) == (StateType.COMPLETED, "Started", "1 started")
    (made,) = release_runs(source)
    assert made.parameters["sources"] == [source]
    assert made.state.type is StateType.SCHEDULED
    assert made.parent_task_run_id is None, "cancelling a watch cancels no release"
    assert training.tags(run) == {RELEASE_RUN: str(made.id)}

    again = watched(training)
    assert (again.type, again.name) == (StateType.COMPLETED, "Nothing new")
    assert [each.id for each in release_runs(source)] == [made.id]


def test_a_watch_that_died_between_the_release_run_and_its_tag_is_made_up_for_without_a_second_one(training):
    source = training.stage("churn")
    run = training.run(source)
    (waiting,) = Tracking(settings().mlflow_uri).waiting([training.experiment], most=10)
    before = started_release(waiting)
    assert training.tags(run) == {}, "it died here"
    assert watched(training).name == "Started"
    assert training.tags(run) == {RELEASE_RUN: str(before)}
    assert len(release_runs(source)) == 1


def test_two_runs_that_name_one_source_share_its_release_until_it_is_staged_anew(training):
    source = training.stage("churn")
    one, two = training.run(source), training.run(f"{source}/")
    assert watched(training).message == "2 started"
    assert training.tags(one) == training.tags(two)
    training.stage("churn", "schema = 1\n# trained again\n")
    three = training.run(source)
    assert watched(training).message == "1 started"
    assert training.tags(three) != training.tags(one)


def test_a_run_is_seen_once_it_has_finished_whatever_its_clock_says_and_never_without_a_source(training):
    source = training.stage("late")
    late = training.run(source, ended=False)
    failed, without = training.run(source, ended=False), training.run(None)
    training.client.set_terminated(failed, status="FAILED")
    assert watched(training).name == "Nothing new"
    training.client.set_terminated(late, end_time=1000)  # milliseconds since 1970
    assert watched(training).message == "1 started"
    assert [training.tags(run) for run in (failed, without)] == [{}, {}]


def test_what_can_not_be_released_is_refused_by_name_once_and_the_others_go_on(training, tmp_path):
    (training.folder / "empty").mkdir(parents=True)
    bad = [
        str(tmp_path / "elsewhere"),
        f"{training.folder}/../secrets",
        f"file://{training.folder}/empty",
        "s3://[",
        "s3://key:hunter2@bucket/x",
        "{{ 7 * 7 }}",
        "x" * 4000,
        " ",
    ]
    refused = [training.run(source) for source in bad]
    good = training.run(training.stage("good"))
    state = watched(training)
    assert (state.type, state.name) == (StateType.FAILED, "Partial")
    assert state.message.startswith(f"1 started, {len(bad)} refused")
    assert training.tags(good).keys() == {RELEASE_RUN}
    for run in refused:
        tags = training.tags(run)
        assert tags.keys() == {REFUSED}
        assert tags[REFUSED].isprintable()
        assert "hunter2" not in tags[REFUSED]
    assert "no package.toml here" in training.tags(refused[2])[REFUSED]
    with client() as api:
        found = api.read_artifacts(
            artifact_filter=ArtifactFilter(flow_run_id={"any_": [state.state_details.flow_run_id]})
        )
    rows = json.loads(found[0].data)
    assert [row["outcome"] for row in rows] == ["refused"] * len(bad) + ["started"]
    assert "hunter2" not in found[0].data
    assert watched(training).name == "Nothing new", "they are not asked again"

    training.client.delete_tag(refused[2], REFUSED)
    training.stage("empty")
    assert watched(training).message == "1 started", "until somebody deletes the tag"


def test_a_source_whose_store_is_away_waits_for_the_next_watch_and_keeps_no_other_waiting(training):
    waits = training.run("s3://away/sources/churn")
    good = training.run(training.stage("good"))
    state = watched(training, limit=1)
    assert (state.type, state.name) == (StateType.FAILED, "Partial")
    assert training.tags(waits) == {}
    assert training.tags(good).keys() == {RELEASE_RUN}


def test_what_is_beyond_the_limit_has_its_turn_in_the_order_in_which_it_was_trained(training):
    runs = [training.run(training.stage(f"m{number}"), start_time=9000 - number) for number in range(5)]
    seen = []
    while watched(training, limit=2).name == "Started":
        seen.append({number for number, run in enumerate(runs) if training.tags(run)})
    assert seen == [{4, 3}, {4, 3, 2, 1}, {4, 3, 2, 1, 0}]


def test_an_mlflow_that_is_away_is_unavailable_and_none_at_all_is_no_fault(training, configured):
    (port,) = free_ports(1)
    configured(f"http://127.0.0.1:{port}")
    with pytest.raises(Unavailable, match="MLflow") as caught:
        look.fn([], 10)
    assert str(caught.value).isprintable()
    configured("http://user:hunter2@127.0.0.1:1")
    with pytest.raises(Refused) as refused:
        look.fn([], 10)
    assert "hunter2" not in str(refused.value)
    configured("")
    assert watch(return_state=True).type is StateType.COMPLETED


def test_an_experiment_that_does_not_exist_is_refused_by_name(training):
    with pytest.raises(Refused, match="no experiment 'misspelt'"):
        look.fn(["misspelt"], 10)


AUTH = ("MLFLOW_FLASK_SERVER_SECRET_KEY=any", "MLFLOW_AUTH_ADMIN_PASSWORD=the-admins-password")


def test_where_we_may_not_tag_nothing_is_lost_and_with_the_permission_nothing_is_doubled(
    configured, monkeypatch, tmp_path
):
    """MLflow with accounts: the worker may read the runs and, at first, not change them."""

    def act_as(name: str, password: str) -> None:
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", name)
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", password)

    def administer(path: str, **document: str) -> None:
        url = f"{server}/api/{path}"
        httpx.post(url, json=document, auth=("admin", "the-admins-password"), timeout=60).raise_for_status()

    with mlflow("--app-name", "basic-auth", environment=AUTH) as server:
        configured(server)
        act_as("admin", "the-admins-password")
        training = Training(server, tmp_path / "sources")
        source = training.stage("churn")
        run = training.run(source)
        administer("2.0/mlflow/users/create", username="watcher", password="the-watchers-password")

        act_as("watcher", "the-watchers-password")
        state = watched(training)
        assert (state.type, state.name) == (StateType.FAILED, "Unavailable")
        assert "EDIT" in state.message
        assert "the-watchers-password" not in state.message
        assert training.tags(run) == {}
        (made,) = release_runs(source)

        edit = {"resource_type": "experiment", "resource_id": training.id, "permission": "EDIT"}
        administer("3.0/mlflow/users/permissions/grant", username="watcher", **edit)
        assert watched(training).name == "Started"
        assert training.tags(run) == {RELEASE_RUN: str(made.id)}
        assert len(release_runs(source)) == 1
