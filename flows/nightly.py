"""Nightly: every model that changed since its last release is released again; the rest costs next to nothing."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Annotated, Any

from prefect import State, flow, task
from prefect.cache_policies import NO_CACHE
from prefect.task_runners import ThreadPoolTaskRunner
from pydantic import Field

from flows.cancellation import cancellable
from flows.run_logging import talk_to_prefect
from flows.run_result import End, Ends, Status, end_of, run_state
from infra.settings import settings
from packhouse.errors import from_document
from packhouse.release.manifest import ChannelName
from tasks._support.subflows import call, taken
from tasks.night.cleanup import clean_up
from tasks.night.plan import Work, night, shards
from tasks.night.reconcile import reconcile, show_mended
from tasks.night.report import show_night
from tasks.signing.sign_channel import look_at_signatures, renew, show_channels, to_look_after

RELEASE = "release/release"
WAITING = 64
"""Shards that are waited for at a time; each is a thread that sleeps."""

Root = Annotated[
    str, Field(min_length=1, max_length=2000, description="A folder or s3:// prefix with sources anywhere below it.")
]


@task(name="shard", task_run_name="shard of {first}", persist_result=False, cache_policy=NO_CACHE)
def shard(first: str, members: list[Work], channel: str, seconds: float) -> list[End]:
    """One run of `release` on whichever worker takes it. Whatever becomes of it costs its own models at most, and the
    night says so."""
    sources = [each.source for each in members]
    try:
        run, ended = call(RELEASE, {"sources": sources, "channel": channel}, within_s=seconds)
        left = taken(run, Ends) if run else None
    except Exception as error:  # a store or a server that is away for long; what the server refuses
        return [end_of(source, error) for source in sources]
    ends = {end.source: end for end in left.ends} if left else {}
    return [ends.get(source) or end_of(source, ended) for source in sources]


@flow(
    name="nightly",
    flow_run_name=lambda: f"night of {datetime.now(UTC):%Y-%m-%d}",
    persist_result=False,
    result_serializer="json",
    task_runner=ThreadPoolTaskRunner(max_workers=WAITING),  # type: ignore[arg-type]
)
def nightly(
    roots: Annotated[list[Root], Field(max_length=100)] = [],  # noqa: B006 - Prefect's form wants a list
    channel: ChannelName = "latest",
    shard_minutes: Annotated[float, Field(gt=0, le=240)] = 15,
    shard_models: Annotated[int, Field(ge=1, le=500)] = 50,
    within_hours: Annotated[float, Field(gt=0, le=48)] = 10,
) -> State[Any]:
    """Release every model whose source changed since its last release, and report the night.

    What is released and unchanged costs two small reads (three where channels are signed) and no task. The rest is
    shared out over runs of `release`, which any worker of the pool may take.

    Args:
        roots: Folders or s3:// prefixes to look through; nothing means the worker's own list, PACKHOUSE_SOURCES.
        channel: The name that moves to the new releases.
        shard_minutes: Estimated minutes of work in one run of `release`.
        shard_models: Models in one run of `release`, at most.
        within_hours: What has not ended after so many hours is cancelled, and is tried again the next night.
    """
    talk_to_prefect()
    started = time.monotonic()
    within_s = within_hours * 3600
    with cancellable():
        if settings().signs:
            renew()  # before all else, so that nothing that befalls the night holds it up
        planned = night(roots or list(settings().sources), channel)
        runs = shards(planned.work, seconds=shard_minutes * 60, most=shard_models)
        waiting = [shard.submit(members[0].model, members, channel, within_s, return_state=False) for members in runs]
        bad = [end_of(each.source, from_document(each.error)) for each in planned.bad]
        ends = [*bad, *(end for run in waiting for end in run.result())]
        if settings().mlflow_uri:  # what an earlier run could not register; its model is unchanged tonight
            show_mended(reconcile([], tags=False))
        standing = look_at_signatures() if settings().signs else []
        show_channels(standing)
        show_night(planned, [end.model_dump(mode="json") for end in ends], time.monotonic() - started)
        clean_up(return_state=True)  # a store that lets nothing be deleted is no end of a night: its task says it
    return run_state(ends, {Status.UNCHANGED: planned.unchanged}, late=to_look_after(standing))
