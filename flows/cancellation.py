"""Cancel: a run that an operator cancels ends itself, with all its children, whether or not its worker hears of it.

Prefect's worker ends a cancelled run when an event reaches it, once; a worker that was killed, was restarted or missed
the event ends nothing. All that packhouse writes is whole or invisible at any moment, so ending hard is safe.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import copy_context
from uuid import UUID

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterParentFlowRunId
from prefect.exceptions import PrefectHTTPStatusError
from prefect.runtime import deployment, flow_run
from prefect.states import Cancelled, Cancelling

from infra.worker.context import WorkerContext, worker_context

LOOK_EVERY_S = 3.0
WORKERS_TURN_S = 10.0
"""So long the worker may take to end the run in its own way, with its hooks, before the run ends itself."""

log = logging.getLogger("packhouse.end")


@contextmanager
def cancellable(shop: WorkerContext | None = None) -> Iterator[None]:
    """While a deployment's run is under way in this process. Nothing where a person started it by hand.

    shop: whose children end with the run; this process's context if there is no other."""
    if not deployment.id:
        yield
        return
    over = threading.Event()
    arguments = (_watch, UUID(str(flow_run.id)), shop, over)
    thread = threading.Thread(target=copy_context().run, args=arguments, name="cancel", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(WORKERS_TURN_S)


def _watch(run: UUID, shop: WorkerContext | None, over: threading.Event) -> None:
    with get_client(sync_client=True) as api:
        while not over.wait(LOOK_EVERY_S):
            if _is_cancelling(api, run):
                log.info("cancelled: children are ended")
                (shop or worker_context()).close()
                ended = over.wait(WORKERS_TURN_S)
                inside, elsewhere = _children_of(api, run)
                for each in elsewhere:
                    api.set_flow_run_state(each, Cancelling(message="the run that started it was cancelled"))
                for each in (*inside, run):
                    api.set_flow_run_state(each, Cancelled(message="Cancelled; the run ended itself."), force=True)
                if not ended:
                    os.kill(os.getpid(), signal.SIGKILL)
                return


def _children_of(api: SyncPrefectClient, run: UUID) -> tuple[list[UUID], list[UUID]]:
    """The runs inside this process, which end with it, and those on other workers, which are told."""
    children = FlowRunFilter(parent_flow_run_id=FlowRunFilterParentFlowRunId(any_=[run]))
    found = [
        each for each in api.read_flow_runs(flow_run_filter=children) if not (each.state and each.state.is_final())
    ]
    inside = [each.id for each in found if each.deployment_id is None]
    return inside, [each.id for each in found if each.deployment_id]


def _is_cancelling(api: SyncPrefectClient, run: UUID) -> bool:
    """False also where the server is away for a while: it is asked again."""
    try:
        state = api.read_flow_run(run).state
    except (httpx.HTTPError, PrefectHTTPStatusError) as error:
        log.info("whether the run is cancelled can not be asked: %s", type(error).__name__)
        return False
    return state is not None and (state.is_cancelling() or state.is_cancelled())
