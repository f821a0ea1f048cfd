"""A real cluster on one machine, as `make up` starts it: PostgreSQL, Prefect's server, two workers of the pool `cpu`.

Part of `make bench-fleet`. A night over 1,000 sources of which 10 changed: how many releases, which worker took how
much of it. Then a staged source: seconds from its event to the start of the first task of its release.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from bench.api import ROOT
from packhouse.errors import Unavailable
from packhouse.training.prefect_client import Orchestrator

WORKERS, SHARD_MODELS = 2, 1
PATIENCE_S = 1200.0
POLL_S = 0.2


def night(orchestrator: Orchestrator, workers: list[Path]) -> dict[str, Any]:
    """One run of `nightly`, shared out over the workers, by their logs. shares: flow runs that each of them took."""
    started = time.perf_counter()
    run = _start(orchestrator, "nightly", {"shard_models": SHARD_MODELS})
    state = _until(lambda: _final(orchestrator, run), "the night ended")
    shares = [log.read_text().count("submitting flow run") for log in workers]
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
def cluster() -> Iterator[Path]:
    """`make up` with two workers, in a folder of its own that PostgreSQL's user can reach. This process sees it as a
    shell does that has read `env`."""
    folder = Path(tempfile.mkdtemp(prefix="packhouse-fleet-", dir="/var/tmp"))
    folder.chmod(0o711)
    environment = os.environ | {"PACKHOUSE_UP": str(folder)}
    for name in ("PACKHOUSE_HOME", "PACKHOUSE_STORE", "PACKHOUSE_SOURCES", "PREFECT_API_URL", "PREFECT_HOME"):
        environment.pop(name, None)
    local = [sys.executable, "-m", "infra.deploy.local"]
    try:
        subprocess.run([*local, "up", "--workers", str(WORKERS)], env=environment, cwd=ROOT, check=True, stdout=2)
        words = shlex.split((folder / "env").read_text())
        os.environ |= dict(word.split("=", 1) for word in words if "=" in word)
        yield folder
    finally:
        subprocess.run([*local, "down"], env=environment, cwd=ROOT, check=True)
        shutil.rmtree(folder, ignore_errors=True)


def logs(folder: Path) -> list[Path]:
    return [folder / "run" / f"worker-cpu-{number}.log" for number in range(1, WORKERS + 1)]


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
    """A server at work may leave a question unanswered: it is asked again."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        with suppress(Unavailable):
            if answer := found():
                return answer
        time.sleep(POLL_S)
    raise SystemExit(f"not in {PATIENCE_S:.0f} s: {what}")


def _epoch(iso: str) -> float:
    return datetime.fromisoformat(iso.replace("Z", "+00:00")).timestamp()
