"""prefect.yaml, strictly: Prefect itself drops a key that it does not know without a word."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect import Flow

from infra.deploy.apply import PREFECT_YAML, automations, deployments

TOP = {"name", "prefect-version", "pull", "deployments"}
KEYS = {
    "name",
    "entrypoint",
    "description",
    "version",
    "tags",
    "work_pool",
    "parameters",
    "schedules",
    "triggers",
    "concurrency_limit",
}
SNAPSHOT = {
    "nightly": ("cpu", "flows.nightly.nightly", ["0 2 * * * Etc/UTC"], "1 CANCEL_NEW", []),
    "release": ("cpu", "flows.release.release", [], "", ["packhouse.source.staged"]),
    "parity-cuda": ("cuda", "flows.parity_cuda.parity_cuda", [], "1 ENQUEUE", []),
    "sign": ("sign", "flows.sign.sign", [], "", []),
    "watch": ("cpu", "flows.watch.watch", ["*/5 * * * * Etc/UTC"], "1 CANCEL_NEW", []),
    "audit": ("cpu", "flows.audit.audit", ["0 6 * * 0 Etc/UTC"], "1 CANCEL_NEW", []),
}
"""Pool, entrypoint, schedules, limit, triggers: a change of a deployment is a change here, for a reviewer to see."""


def summary(deployment: dict[str, Any]) -> tuple[Any, ...]:
    limit = deployment.get("concurrency_limit", {})
    return (
        deployment["work_pool"]["name"],
        deployment["entrypoint"],
        [f"{each['cron']} {each['timezone']}" for each in deployment.get("schedules", [])],
        f"{limit['limit']} {limit['collision_strategy']}" if limit else "",
        [event for trigger in deployment.get("triggers", []) for event in trigger["expect"]],
    )


def test_the_deployments_are_these():
    assert {each["name"]: summary(each) for each in deployments()} == SNAPSHOT


def test_no_key_is_misspelt():
    assert yaml.safe_load(PREFECT_YAML.read_text()).keys() == TOP
    for each in deployments():
        assert each.keys() <= KEYS, each["name"]
        assert each["work_pool"].keys() <= {"name", "work_queue_name"}
        assert each.get("concurrency_limit", {}).keys() <= {"limit", "collision_strategy"}
        for schedule in each.get("schedules", []):
            assert schedule.keys() == {"slug", "cron", "timezone", "active"}


@pytest.mark.parametrize("deployment", deployments(), ids=lambda each: str(each["name"]))
def test_an_entrypoint_is_a_flow_of_that_name_and_takes_the_parameters_that_are_set(deployment):
    module, _, name = deployment["entrypoint"].rpartition(".")
    flow = getattr(importlib.import_module(module), name)
    assert isinstance(flow, Flow)
    assert flow.name == deployment["name"]
    accepted = inspect.signature(flow.fn).parameters.keys()
    given = deployment.get("parameters", {}).keys()
    triggered = {key for trigger in deployment.get("triggers", []) for key in trigger["parameters"]}
    assert given | triggered <= accepted
    assert flow.persist_result is False
    assert flow.result_serializer == "json"


@pytest.mark.parametrize("deployment", deployments(), ids=lambda each: str(each["name"]))
def test_a_form_explains_every_field(deployment):
    module, _, name = deployment["entrypoint"].rpartition(".")
    flow = getattr(importlib.import_module(module), name)
    for key, schema in flow.parameters.properties.items():
        assert schema.get("description") or "$ref" in str(schema), f"{deployment['name']}: {key} has no description"


def test_no_path_of_a_machine_stands_in_the_file():
    assert "{{ $PACKHOUSE_WORKER }}" in PREFECT_YAML.read_text()
    assert str(Path.home()) not in PREFECT_YAML.read_text()


def test_a_lost_worker_ends_its_run():
    (lost,) = [each for each in automations() if each.name == "packhouse-lost-worker"]
    assert lost.enabled
    assert lost.trigger.posture.value == "Proactive"
    (action,) = lost.actions
    assert action.state.value == "CRASHED"
