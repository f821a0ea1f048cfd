"""`make deploy` on a real server that asks for a password: what is there then, and after others were at it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from typing import Any
from uuid import uuid4

import httpx
import pytest

from infra.deploy.apply import ROOT
from tests.servers import place
from tests.servers.place import free_ports
from tests.servers.prefect import prefect_server

LOGIN = ("operator", "a-password-of-a-test")
PATIENCE_S = 240.0
LOST = "packhouse-lost-worker"
pytestmark = [pytest.mark.flow]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("prefect-with-a-password")
    with prefect_server(folder, {"PREFECT_SERVER_API_AUTH_STRING": ":".join(LOGIN)}) as found:
        yield found


@pytest.fixture(scope="module")
def server(url: str) -> Iterator[httpx.Client]:
    sooner = httpx.Limits(keepalive_expiry=2)  # than the server, which closes what was idle for 5 s, as httpx would
    with httpx.Client(base_url=f"{url}/", auth=LOGIN, timeout=60, trust_env=False, limits=sooner) as client:
        yield client


@pytest.fixture(scope="module")
def applied(url: str) -> subprocess.CompletedProcess[str]:
    done = apply(url)
    assert done.returncode == 0, done.stderr
    return done


def apply(url: str, *arguments: str, login: str = ":".join(LOGIN)) -> subprocess.CompletedProcess[str]:
    """By an operator whose profile names a default pool, which Prefect's own command would prefer to the file's."""
    environment = clean() | {"PREFECT_API_URL": url, "PREFECT_API_AUTH_STRING": login}
    environment |= {"PREFECT_DEPLOYMENTS_DEFAULT_WORK_POOL_NAME": "elsewhere"}
    command = [sys.executable, "-m", "infra.deploy.apply", *arguments]
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=PATIENCE_S
    )


until = partial(place.until, seconds=PATIENCE_S, every_s=0.5)


def ask(server: httpx.Client, method: str, path: str, document: Any = None) -> Any:
    answer = server.request(method, path, json=document)
    assert answer.is_success, answer.text
    return answer.json() if answer.content else None


def everything(server: httpx.Client) -> dict[str, Any]:
    """What an operator would see change, were something doubled or moved."""
    deployments = {}
    for each in ask(server, "POST", "deployments/filter", {}):
        schedules = [(one["schedule"]["cron"], one["schedule"]["timezone"], one["active"]) for one in each["schedules"]]
        limit = each["global_concurrency_limit"]
        fixed = [each[name] for name in ("id", "entrypoint", "work_pool_name", "job_variables", "parameters", "tags")]
        deployments[each["name"]] = (*fixed, schedules, limit and limit["limit"])
    return {
        "pools": {each["name"]: each["base_job_template"] for each in ask(server, "POST", "work_pools/filter", {})},
        "deployments": deployments,
        "automations": sorted(each["name"] for each in ask(server, "POST", "automations/filter", {})),
    }


def automation(server: httpx.Client) -> dict[str, Any]:
    found: dict[str, Any] = ask(server, "POST", "automations/filter", {"automations": {"name": {"any_": [LOST]}}})[0]
    return found


def test_all_is_there_and_applied_again_nothing_is_changed_or_doubled(url, server, applied):
    there = everything(server)
    assert there["pools"].keys() == {"cpu", "cuda", "sign"}
    assert {each["name"]: each["work_pool_name"] for each in ask(server, "POST", "deployments/filter", {})} == {
        "nightly": "cpu",
        "release": "cpu",
        "parity-cuda": "cuda",
        "sign": "sign",
        "watch": "cpu",
        "audit": "cpu",
    }
    assert there["automations"] == [LOST, "packhouse-source-staged"]
    again = apply(url)
    assert again.returncode == 0, again.stderr
    assert everything(server) == there
    unchanged = [line.split(": ")[0] for line in again.stdout.splitlines() if line.endswith("unchanged")]
    assert unchanged == ["pool cpu", "pool cuda", "pool sign", f"automation {LOST}"]


def test_the_scheduler_makes_the_runs_of_tonight(server, applied):
    def scheduled() -> bool:
        runs = ask(server, "POST", "flow_runs/filter", {"deployments": {"name": {"any_": ["nightly"]}}})
        return any(run["auto_scheduled"] and run["expected_start_time"] for run in runs)

    until(scheduled, "nightly is scheduled")


def test_what_somebody_changed_by_hand_is_put_right(url, server, applied):
    before = everything(server)
    anything = {"job_configuration": {"command": "{{ command }}"}, "variables": {"properties": {"command": {}}}}
    ask(server, "PATCH", "work_pools/cpu", {"base_job_template": anything})
    lost = automation(server)
    off = {name: lost[name] for name in ("name", "description", "trigger", "actions")} | {"enabled": False}
    ask(server, "PUT", f"automations/{lost['id']}", off)
    ask(server, "POST", "automations/", off)
    nightly = ask(server, "GET", "deployments/name/nightly/nightly")
    changed = {"work_pool_name": "cuda", "concurrency_limit": 7, "parameters": {"channel": "mine"}}
    ask(server, "PATCH", f"deployments/{nightly['id']}", changed)
    assert everything(server) != before
    done = apply(url)
    assert done.returncode == 0, done.stderr
    assert everything(server) == before
    assert automation(server)["enabled"]


@pytest.mark.parametrize("name", ["release", "parity-cuda"])
def test_whoever_starts_a_run_can_not_say_what_the_worker_executes(server, applied, name):
    identity = ask(server, "GET", f"deployments/name/{name}/{name}")["id"]
    ld_preload = {"LD_PRELOAD": "/tmp/owned.so"}
    for given in ({"command": "touch /tmp/owned"}, {"env": ld_preload}, {"env.LD_PRELOAD": "x"}, {"working_dir": "/"}):
        assert started(server, identity, given) == 422, given
    ask(server, "PATCH", f"deployments/{identity}", {"job_variables": {"env": ld_preload}})
    assert started(server, identity, {}) == 422, "nor by way of the deployment"
    ask(server, "PATCH", f"deployments/{identity}", {"job_variables": {}})


def started(server: httpx.Client, deployment: str, job_variables: dict[str, Any]) -> int:
    """How the server answers."""
    parameters = {"sources": ["/nowhere"], "batch": {}}
    run = {"parameters": parameters, "job_variables": job_variables, "enforce_parameter_schema": False}
    return server.post(f"deployments/{deployment}/create_flow_run", json=run).status_code


def test_a_run_whose_worker_is_gone_crashes_and_frees_its_place(server, applied):
    lost = automation(server)
    sooner = {name: lost[name] for name in ("name", "actions")} | {"trigger": lost["trigger"] | {"within": 10.0}}
    ask(server, "PUT", f"automations/{lost['id']}", sooner)  # as it is, but that nobody waits two minutes
    nightly = ask(server, "GET", "deployments/name/nightly/nightly")
    run = ask(server, "POST", f"deployments/{nightly['id']}/create_flow_run", {})["id"]
    for state in ("PENDING", "RUNNING"):
        assert ask(server, "POST", f"flow_runs/{run}/set_state", {"state": {"type": state}})["status"] == "ACCEPT"
    assert places(server) == 1
    for _ in range(3):
        ask(server, "POST", "events", [heartbeat(run)])
        time.sleep(0.5)  # as between heartbeats
    until(lambda: ask(server, "GET", f"flow_runs/{run}")["state_type"] == "CRASHED", "the run crashed")
    assert "worker of this run is gone" in ask(server, "GET", f"flow_runs/{run}")["state"]["message"]
    until(lambda: places(server) == 0, "its place is free")


def places(server: httpx.Client) -> int:
    nightly = ask(server, "GET", "deployments/name/nightly/nightly")
    return int(nightly["global_concurrency_limit"]["active_slots"])


def heartbeat(run: str) -> dict[str, Any]:
    return {
        "id": str(uuid4()),
        "event": "prefect.flow-run.heartbeat",
        "occurred": datetime.now(UTC).isoformat(),
        "resource": {"prefect.resource.id": f"prefect.flow-run.{run}"},
        "payload": {},
        "related": [],
    }


def test_another_key_another_kind_of_pool_and_no_server_each_say_so_in_a_line_and_change_nothing(url, server, applied):
    before = everything(server)
    key = apply(url, login="operator:guess")
    assert (key.returncode, "set PREFECT_API_AUTH_STRING" in key.stderr) == (1, True), key.stderr
    kind = apply(url, "--kind", "docker", "--image", "packhouse-worker@sha256:" + "0" * 64)
    assert kind.returncode == 1
    assert kind.stderr.startswith("refused: pool cpu: is of another kind; got process, want docker")
    nobody = f"http://127.0.0.1:{free_ports(1)[0]}/api"
    away = apply(nobody)
    assert away.returncode == 2
    assert away.stderr.startswith(f"unavailable: {nobody}: the server does not answer")
    for said in (key, kind, away):
        assert len(said.stderr.strip().splitlines()) == 1
        assert LOGIN[1] not in said.stderr + said.stdout
        assert "guess" not in said.stderr
    assert everything(server) == before


def clean() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "PACKHOUSE_"))}
    quiet = {"PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1", "NO_COLOR": "1"}
    return kept | quiet | {"PYTHONPATH": str(ROOT)}
