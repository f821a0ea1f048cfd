"""What an operator sees of a model's run: its tasks, as docs/contracts.md names them."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterName, TaskRunFilter, TaskRunFilterFlowRunId
from prefect.client.schemas.objects import StateType, TaskRun

from flows.release import released
from flows.run_result import End, Status

CONTRACTS = Path(__file__).resolve().parents[2] / "docs" / "contracts.md"
MOST = 13
PATIENCE_S = 60


def documented() -> list[str]:
    """The names in the table of tasks."""
    section = CONTRACTS.read_text().partition("## Tasks of a model's run")[2]
    return re.findall(r"^\| ([a-z][^|]*?) \|", section, re.MULTILINE)[1:]


def tasks_of(end: End, *, until: Callable[[list[TaskRun]], bool]) -> list[TaskRun]:
    """The server writes down what it hears of tasks in batches, so the last ones come late."""
    deadline = time.monotonic() + PATIENCE_S
    while not until(found := _tasks_of(end)) and time.monotonic() < deadline:
        time.sleep(0.5)
    return found


def _tasks_of(end: End) -> list[TaskRun]:
    with get_client(sync_client=True) as client:
        named = FlowRunFilterName(like_=Path(end.source).name)
        runs = client.read_flow_runs(flow_run_filter=FlowRunFilter(name=named))
        (run,) = [run for run in runs if run.parameters.get("source") == end.source]
        of = TaskRunFilter(flow_run_id=TaskRunFilterFlowRunId(any_=[run.id]))
        return client.read_task_runs(task_run_filter=of, limit=200)


@pytest.mark.flow
def test_model_has_only_the_documented_tasks_and_the_one_that_failed_is_red(home, api, staged) -> None:
    names = documented()
    assert len(names) == MOST, names
    formats = {"program": "off", "onnx": "off", "onnx-int8": "off"}
    good, bad = released([staged("linear"), staged("frozen-branch", formats=formats)])
    assert (good.status, bad.status) == (Status.RELEASED, Status.REFUSED), (good.reason, bad.reason)

    def known(run: TaskRun) -> str:
        return "make FORMAT" if re.fullmatch(r"make [a-z0-9-]+", run.name) else run.name

    def recorded(runs: list[TaskRun]) -> bool:
        return all(run.state and run.state.is_final() for run in runs) and "commit and promote" in map(known, runs)

    runs = {known(run): run for run in tasks_of(good, until=recorded)}
    assert set(runs) <= set(names)
    assert set(names) - set(runs) == {"build image", "canary", "register in MLflow"}, "this model has no image"
    assert all(run.state and run.state.is_completed() for run in runs.values())

    def failed(runs: list[TaskRun]) -> list[str]:
        return [run.name for run in runs if run.state and run.state.type is StateType.FAILED]

    red = failed(tasks_of(bad, until=lambda runs: bool(failed(runs))))
    assert red == ["make torchscript"], "the reason of the refusal stands at the task that found it"
