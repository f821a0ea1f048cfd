"""Runs of other deployments: started with references only, and what they leave behind for the run that started them.

Nothing comes back through Prefect: a small document in the store, under the run's own id, says how a run ended.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar, cast
from uuid import UUID

import httpx
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import WorkerFilter, WorkerFilterLastHeartbeatTime, WorkerFilterStatus
from prefect.client.schemas.objects import FlowRun, State
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound
from prefect.runtime import flow_run
from prefect.states import Cancelling

from infra.worker.context import worker_context
from packhouse.artifact import Frozen
from packhouse.digest import canonical_json, digest_bytes
from packhouse.errors import NotFound, PackhouseError, RunLost, SpecInvalid
from packhouse.release.manifest import MAX_DOCUMENT_BYTES, dump, load
from packhouse.release.store_layout import work_key

T = TypeVar("T", bound=Frozen)

POLL_S = 2.0
LOOK_AGAIN_S = 15.0
"""While a run has not started: is there still a worker that could?"""

SILENT_S = 120.0
"""A worker tells every 30 seconds that it is there. The server's own word for it comes late, or, embedded, never."""

MAX_PARAMETER_BYTES = 400_000
"""Prefect's own limit is 512 kB."""

log = logging.getLogger("packhouse.line")


def call(deployment: str, parameters: dict[str, Any], *, within_s: float) -> tuple[str, PackhouseError]:
    """Runs a deployment and waits: the run's id, and what to say of work of which it left no word.

    A second call with the same parameters meets the first one's run, until a person retries the run that calls. A run
    that takes longer than `within_s` is cancelled.
    """
    words = canonical_json(parameters)
    if len(words) > MAX_PARAMETER_BYTES:
        raise SpecInvalid("PH-0592 too many parameters for one run", where=deployment, got=f"{len(words):,} bytes")
    try:
        run = start(deployment, parameters, once=f"{flow_run.id}-{flow_run.run_count}-{digest_bytes(words)[7:39]}")
    except SpecInvalid as error:
        return "", error
    try:
        state = ended(run, within_s=within_s)
    except RunLost as error:
        return str(run.id), error
    return str(run.id), RunLost(f"PH-0593 ended as {state.name}: {state.message}", where=run.name)


def start(
    deployment: str,
    parameters: dict[str, Any],
    *,
    once: str | None,
    name: str | None = None,
    tags: Sequence[str] = (),
    outlives: bool = False,
) -> FlowRun:
    """The run that was started with the same `once` where there is one. outlives: it is no part of the run that starts
    it, and is not cancelled with it. Raises SpecInvalid: no such deployment."""
    try:
        started = run_deployment(
            deployment,
            parameters=parameters,
            flow_run_name=name,
            tags=tags,
            timeout=0,
            as_subflow=not outlives,
            idempotency_key=once,
        )
    except ObjectNotFound as error:
        next_step = "`make deploy` creates it"
        raise SpecInvalid("PH-0591 there is no such deployment", where=deployment, next=next_step) from error
    return cast(FlowRun, started)  # no coroutine: a task runs on a thread without a loop


def ended(run: FlowRun, *, within_s: float, hopeless: Callable[[], str] = lambda: "") -> State[Any]:
    """Waits for a run's last state, also through a server that is away for a while.

    hopeless: why a run that has not started never will, or nothing. Raises RunLost: it is not waited for any more,
    and is cancelled.
    """
    give_up, look = time.monotonic() + within_s, time.monotonic() + LOOK_AGAIN_S
    while True:
        state = _state(run.id)
        if state and state.is_final():
            return state
        reason = ""
        if time.monotonic() > give_up:
            reason = f"PH-0590 did not end within {within_s:,g} s"
        elif time.monotonic() > look:
            look = time.monotonic() + LOOK_AGAIN_S
            reason = hopeless() if state and (state.is_scheduled() or state.is_pending()) else ""
        if reason:
            with get_client(sync_client=True) as client:
                client.set_flow_run_state(run.id, Cancelling(message=f"Cancelled by the run that started it: {reason}"))
            raise RunLost(reason, where=run.name)
        time.sleep(POLL_S)


def nobody_in(pool: str) -> str:
    """Empty where a worker of the pool is online now, else why none is, in one line. Two calls of the API, no wait."""
    alive = WorkerFilter(
        status=WorkerFilterStatus(any_=["ONLINE"]),
        last_heartbeat_time=WorkerFilterLastHeartbeatTime(after_=datetime.now(UTC) - timedelta(seconds=SILENT_S)),
    )
    try:
        with get_client(sync_client=True) as client:
            if client.read_work_pool(pool).is_paused:
                return f"the work pool {pool!r} is paused"
            if not client.read_workers_for_work_pool(pool, worker_filter=alive, limit=1):
                return f"no worker of the work pool {pool!r} is online"
    except ObjectNotFound:
        return f"there is no work pool {pool!r}"
    except httpx.HTTPError as error:
        return f"Prefect's API did not say whether a worker of {pool!r} is online: {type(error).__name__}"
    return ""


def _state(run: UUID) -> State[Any] | None:
    """None where the API does not answer at the moment."""
    try:
        with get_client(sync_client=True) as client:
            return client.read_flow_run(run).state
    except httpx.TransportError as error:
        log.warning("flow run %s: Prefect's API does not answer: %s", run, error)
        return None


def leave(run: str, document: Frozen) -> None:
    data = dump(document)
    worker_context().store.put(_key(run), data, digest=digest_bytes(data))


def taken(run: str, kind: type[T]) -> T | None:
    """None where the run left nothing, since it crashed or was cancelled. What it left is deleted."""
    store = worker_context().store
    try:
        data, _ = store.get(_key(run), limit=MAX_DOCUMENT_BYTES)
    except NotFound:
        return None
    document = load(kind, data, where=_key(run))
    store.delete(_key(run))
    return document


def _key(run: str) -> str:
    return work_key(f"runs/{run}.json")
