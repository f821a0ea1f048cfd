"""Runs of other deployments: started with references only, and what they leave behind for the run that started them.

Nothing comes back through Prefect: a small document in the store, under the run's own id, says how a run ended.
"""

from __future__ import annotations

from typing import Any, TypeVar, cast
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound
from prefect.runtime import flow_run
from prefect.states import Cancelling

from infra.workshop import workshop
from packhouse.artifact import Frozen
from packhouse.digest import canonical_json, digest_bytes
from packhouse.errors import NotFound, PackhouseError, RunLost, SpecInvalid
from packhouse.manifest import MAX_DOCUMENT_BYTES, dump, load

T = TypeVar("T", bound=Frozen)


POLL_S = 2.0
MAX_PARAMETER_BYTES = 400_000
"""Prefect's own limit is 512 kB."""


def call(deployment: str, parameters: dict[str, Any], *, within_s: float) -> tuple[str, PackhouseError]:
    """Runs a deployment and waits: the run's id, and what to say of work of which it left no word.

    A second call with the same parameters by the same run meets the first one's run. A run that takes longer than
    `within_s` is cancelled.
    """
    words = canonical_json(parameters)
    if len(words) > MAX_PARAMETER_BYTES:
        raise SpecInvalid("too many parameters for one run", where=deployment, got=f"{len(words):,} bytes")
    key = f"{flow_run.id}-{digest_bytes(words)[7:39]}"
    try:
        started = run_deployment(
            deployment, parameters=parameters, timeout=within_s, poll_interval=POLL_S, idempotency_key=key
        )
    except ObjectNotFound:
        return "", SpecInvalid("there is no such deployment", where=deployment, next="`make deploy` creates it")
    run = cast(FlowRun, started)  # no coroutine: a task runs on a thread without a loop
    state = run.state
    if state is None or not state.is_final():
        _cancel(run.id)
        return str(run.id), RunLost("took too long and was cancelled", where=run.name, want=f"{within_s:,.0f} s")
    return str(run.id), RunLost(f"ended as {state.name}: {state.message}", where=run.name)


def _cancel(run: UUID) -> None:
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(run, Cancelling(message="the run that started it has waited long enough"))


def leave(run: str, document: Frozen) -> None:
    data = dump(document)
    workshop().store.put(_key(run), data, digest=digest_bytes(data))


def taken(run: str, kind: type[T]) -> T | None:
    """None where the run left nothing, since it crashed or was cancelled. What it left is deleted."""
    store = workshop().store
    try:
        data, _ = store.get(_key(run), limit=MAX_DOCUMENT_BYTES)
    except NotFound:
        return None
    document = load(kind, data, where=_key(run))
    store.delete(_key(run))
    return document


def _key(run: str) -> str:
    return f"_work/runs/{run}.json"
