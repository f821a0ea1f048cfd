"""The event of a staged source, with the trigger of prefect.yaml, on a real Prefect server whose pool has no worker."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
import yaml
from prefect.client.schemas.filters import FlowRunFilter
from prefect.events.schemas.deployment_triggers import DeploymentEventTrigger

from flows.release import release
from packhouse.training.announce import announce, event
from packhouse.training.prefect_client import Orchestrator
from tests.servers.prefect import prefect_server
from tests.support.cluster import ROOT, client, deploy

pytestmark = [pytest.mark.flow, pytest.mark.usefixtures("api")]

PATIENCE_S = 180.0
FAILED = "prefect.automation.action.failed"
AWAKE = "s3://models/awake/"


class Trigger:
    """release: the deployment's id. An automation of prefect.yaml starts it."""

    def __init__(self, api: str) -> None:
        self.server = Orchestrator(api)
        deployments = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
        (described,) = next(each for each in deployments if each["name"] == "release")["triggers"]
        trigger = DeploymentEventTrigger.model_validate(described)
        with client() as prefect:
            self.deployment = prefect.read_deployment_by_name(deploy(release, "no-worker-here")).id
            trigger.set_deployment_id(self.deployment)
            self.automation = prefect.create_automation(trigger.as_automation())

    def wake(self, api: str) -> None:
        """A server that is busy takes a new automation up some time after it has said that it is there."""
        deadline = time.monotonic() + PATIENCE_S
        while len(self._started()) == len(self.runs()):
            assert time.monotonic() < deadline, "the server never took up the automation"
            assert announce(f"{AWAKE}{uuid4().hex}", model="awake", digest=digest(), api=api) == ""
            time.sleep(1)

    def runs(self) -> list[Any]:
        """But for those that woke it."""
        return [run for run in self._started() if not str(run.parameters["sources"]).startswith(f"['{AWAKE}")]

    def _started(self) -> list[Any]:
        with client() as prefect:
            found = prefect.read_flow_runs(flow_run_filter=FlowRunFilter(deployment_id={"any_": [self.deployment]}))
        return [run for run in found if run.created_by and run.created_by.id == self.automation]

    def refusals(self) -> dict[str, str]:
        """What an operator finds in the event feed: by the id of the event that started no run, why."""
        resource = {"id": [f"prefect.automation.{self.automation}"]}
        asked = {"filter": {"event": {"name": [FAILED]}, "resource": resource}, "limit": 50}
        return {
            _trigger(found): found["payload"]["reason"] for found in self.server.ask("/events/filter", asked)["events"]
        }

    def wait_for(self, ends: int) -> None:
        """Until so many events have come to their end: a run, or a refusal."""
        deadline = time.monotonic() + PATIENCE_S
        while len(self.runs()) + len(self.refusals()) < ends:
            assert time.monotonic() < deadline, (self.runs(), self.refusals())
            time.sleep(0.5)


def _trigger(failed: dict[str, Any]) -> str:
    (name,) = (
        resource["prefect.resource.id"]
        for resource in failed["related"]
        if resource["prefect.resource.role"] == "triggering-event"
    )
    return str(name).removeprefix("prefect.event.")


@pytest.fixture
def trigger(api: str) -> Iterator[Trigger]:
    made = Trigger(api)
    made.wake(api)
    yield made
    with client() as prefect:
        prefect.delete_automation(made.automation)


def digest() -> str:
    return f"sha256:{uuid4().hex * 2}"


def test_a_staged_source_starts_one_release_of_it_and_the_same_event_again_none(api, trigger):
    same = digest()
    for _ in range(3):
        assert announce("s3://models/churn/run-17", model="churn", digest=same, api=api) == ""
    other = digest()
    assert announce("s3://models/churn/run-18", model="churn", digest=other, api=api) == ""
    trigger.wait_for(2)
    found = sorted(run.parameters["sources"] for run in trigger.runs())
    assert found == [["s3://models/churn/run-17"], ["s3://models/churn/run-18"]]


PLAIN = ["{{ 7 * 7 }}", "{% raw %}\"'}} {{ event }}", '"], "channel": "production', "\\u0022\n]"]
"""Text that some language would take for more than text."""

NO_SOURCE: list[Any] = [
    5,
    True,
    None,
    "",
    "x" * 600_000,
    ["s3://b/a", "s3://b/b"],
    {"a": "b"},
    {"__prefect_kind": "jinja", "template": "{{ 7 * 7 }}"},
    {"__prefect_kind": "workspace_variable", "variable_name": "secret"},
    [{"__prefect_kind": "json", "value": '"s3://b/a"'}],
]
MISSING = object()


def test_a_hostile_payload_stays_plain_text_or_starts_nothing_and_says_why_in_the_event_feed(trigger):
    sent = {}
    for payload in [*PLAIN, *NO_SOURCE, MISSING]:
        one = event("s3://b/a", model="m", digest=digest())
        one["payload"]["source"] = payload
        if payload is MISSING:
            del one["payload"]["source"]
        trigger.server.ask("/events", [one])
        sent[one["id"]] = payload
    trigger.wait_for(len(sent))
    assert sorted(run.parameters["sources"] for run in trigger.runs()) == sorted([text] for text in PLAIN)
    refused = trigger.refusals()
    assert len(refused) == len(NO_SOURCE) + 1
    assert all(not isinstance(sent[identity], str) or sent[identity] not in PLAIN for identity in refused)
    assert all(refused.values())


@pytest.mark.server
def test_a_server_with_a_password_and_forgery_protection_takes_the_event_and_not_with_a_wrong_password(
    monkeypatch, tmp_path
):
    asked = {"PREFECT_SERVER_API_AUTH_STRING": "admin:pass", "PREFECT_SERVER_CSRF_PROTECTION_ENABLED": "true"}
    with prefect_server(tmp_path, asked) as url:
        monkeypatch.setenv("PREFECT_API_AUTH_STRING", "admin:pass")
        assert announce("s3://b/a", model="m", digest=digest(), api=url) == ""
        monkeypatch.setenv("PREFECT_API_AUTH_STRING", "admin:wrong")
        assert "401" in announce("s3://b/a", model="m", digest=digest(), api=url)
