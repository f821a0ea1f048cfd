"""A worker for the tests: a real process of `prefect worker start`, on a pool of its own, and deployments for it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast
from uuid import UUID

import yaml
from prefect import Flow
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.objects import ConcurrencyOptions, FlowRun
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectAlreadyExists
from prefect.utilities.callables import parameter_schema
from prefect.workers.process import ProcessWorker

ROOT = Path(__file__).resolve().parent.parent.parent
PATIENCE_S = 300.0


@contextmanager
def client() -> Iterator[SyncPrefectClient]:
    with get_client(sync_client=True) as opened:
        yield opened


def pool(name: str) -> str:
    """A process pool of this name; one that is there stays."""
    template = ProcessWorker.get_default_base_job_template()
    with client() as api, suppress(ObjectAlreadyExists):
        api.create_work_pool(WorkPoolCreate(name=name, type="process", base_job_template=template))
    return name


def deploy(flow: Flow[Any, Any], pool_name: str, environment: Mapping[str, str] = MappingProxyType({})) -> str:
    """`flow/flow`, run from this repository by whichever worker of the pool takes it, so many at a time as prefect.yaml
    says. environment: of its runs, besides the worker's own; so that tests can share workers and no folder."""
    described = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    limit = next(each for each in described if each["name"] == flow.name).get("concurrency_limit")
    with client() as api:
        api.create_deployment(
            flow_id=api.create_flow(flow),
            name=flow.name,
            work_pool_name=pool(pool_name),
            entrypoint=f"{flow.fn.__module__}.{flow.fn.__name__}",
            path=str(ROOT),
            pull_steps=[{"prefect.deployments.steps.set_working_directory": {"directory": str(ROOT)}}],
            parameter_openapi_schema=parameter_schema(flow).model_dump(),
            job_variables={"env": dict(environment)},
            enforce_parameter_schema=True,
            concurrency_limit=limit and limit["limit"],
            concurrency_options=limit and ConcurrencyOptions(collision_strategy=limit["collision_strategy"]),
        )
    return f"{flow.name}/{flow.name}"


class Worker:
    """One `prefect worker`, in a process group of its own."""

    def __init__(self, pool_name: str, environment: Mapping[str, str], log: Path) -> None:
        self.log = log
        command = [str(Path(sys.executable).parent / "prefect"), "worker", "start", "-p", pool_name, "-t", "process"]
        with log.open("ab") as file:
            self.process = subprocess.Popen(
                command,
                env=os.environ
                | {
                    "PREFECT_WORKER_QUERY_SECONDS": "1",
                    "PYTHONPATH": str(ROOT),
                }
                | dict(environment),
                stdout=file,
                stderr=file,
                start_new_session=True,
            )

    def kill(self) -> None:
        """The worker and all it started, at once, as a machine that is switched off."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGTERM)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.kill()


@contextmanager
def worker(pool_name: str, environment: Mapping[str, str], log: Path) -> Iterator[Worker]:
    running = Worker(pool_name, environment, log)
    try:
        yield running
    finally:
        running.stop()


def start(deployment: str, **parameters: Any) -> UUID:
    run = cast(FlowRun, run_deployment(deployment, parameters=parameters, timeout=0, as_subflow=False))
    return run.id


def run(identity: UUID) -> FlowRun:
    with client() as api:
        return api.read_flow_run(identity)


def until(identity: UUID, condition: Callable[[FlowRun], bool] | None = None) -> FlowRun:
    """The run, once the condition holds; without one, once it has ended."""
    deadline = time.monotonic() + PATIENCE_S
    holds = condition or (lambda found: found.state is not None and found.state.is_final())
    while time.monotonic() < deadline:
        found = run(identity)
        if holds(found):
            return found
        time.sleep(0.5)
    raise TimeoutError(f"{found.name}: {found.state}")
