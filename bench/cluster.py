"""A real cluster on one machine: Prefect's server, prefect.yaml as it is, two workers of the pool `cpu`.

Part of `make bench-fleet`. A night over 1,000 sources of which 10 changed: how many releases, which worker took how
much of it. Then a staged source: seconds from its event to the start of the first task of its release.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from bench.api import ROOT
from packhouse.orchestrator import Orchestrator

WORKERS, SHARD_MODELS = 2, 2
PATIENCE_S = 1200.0
POLL_S = 0.05


def night(orchestrator: Orchestrator, logs: list[Path]) -> dict[str, Any]:
    """One run of `nightly`, shared out over the workers. shares: flow runs that each of them took."""
    started = time.perf_counter()
    run = _start(orchestrator, "nightly", {"shard_models": SHARD_MODELS})
    state = _until(lambda: _final(orchestrator, run), "the night ended")
    took = re.compile(r"submitting flow run")
    shares = [len(took.findall(log.read_text())) for log in logs]
    return {"seconds": time.perf_counter() - started, "message": state["message"], "shares": shares}


def event_to_first_task(orchestrator: Orchestrator, stage: Callable[[str], None]) -> float:
    """Seconds from the moment when `packhouse.stage` returned, having told the server, to the first task's start."""
    before = {run["id"] for run in _runs(orchestrator, "release")}
    stage("staged-now")
    told = time.time()
    (run,) = _until(
        lambda: [each for each in _runs(orchestrator, "release") if each["id"] not in before], "a release began"
    )
    asked = {"flow_runs": {"id": {"any_": [run["id"]]}}, "sort": "EXPECTED_START_TIME_ASC", "limit": 1}
    (first,) = _until(
        lambda: [each for each in orchestrator.ask("/task_runs/filter", asked) if each["start_time"]], "a task began"
    )
    _until(lambda: _final(orchestrator, run["id"]), "the release ended")
    return _epoch(first["start_time"]) - told


@contextmanager
def workers(environment: dict[str, str], folder: Path) -> Iterator[list[Path]]:
    """Deploys, and starts the workers: the log of each. They are stopped by their process ids."""
    environment = environment | {"PACKHOUSE_WORKER": str(ROOT), "PREFECT_WORKER_QUERY_SECONDS": "1"}
    subprocess.run([sys.executable, "-m", "infra.deploy.apply"], env=environment, cwd=ROOT, check=True, stdout=2)
    logs = [folder / f"worker-{number}.log" for number in range(WORKERS)]
    command = [str(Path(sys.executable).parent / "prefect"), "worker", "start", "--pool", "cpu", "--type", "process"]
    with ExitStack() as running:
        for log in logs:
            file = running.enter_context(log.open("wb"))
            quiet = environment | {"PREFECT_LOGGING_LEVEL": "INFO"}
            process = subprocess.Popen(command, env=quiet, stdout=file, stderr=file)
            running.callback(process.wait)
            running.callback(process.terminate)
        yield logs


def _start(orchestrator: Orchestrator, name: str, parameters: dict[str, Any]) -> str:
    deployment = orchestrator.ask(f"/deployments/name/{name}/{name}")
    answer = orchestrator.ask(f"/deployments/{deployment['id']}/create_flow_run", {"parameters": parameters})
    return str(answer["id"])


def _runs(orchestrator: Orchestrator, flow: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = orchestrator.ask("/flow_runs/filter", {"flows": {"name": {"any_": [flow]}}})
    return found


def _final(orchestrator: Orchestrator, run: str) -> dict[str, Any]:
    """Its state once it has ended, else nothing."""
    state = orchestrator.ask(f"/flow_runs/{run}")["state"] or {}
    return state if state.get("type") in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED") else {}


def _until(found: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + PATIENCE_S
    while not (answer := found()):
        if time.monotonic() > deadline:
            raise SystemExit(f"not in {PATIENCE_S:.0f} s: {what}")
        time.sleep(POLL_S)
    return answer


def _epoch(iso: str) -> float:
    from datetime import datetime

    return datetime.fromisoformat(iso.replace("Z", "+00:00")).timestamp()
