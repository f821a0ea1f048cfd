"""Release: sources go down the line, and each becomes a release or is refused with one clear line."""

from __future__ import annotations

import time
from typing import Annotated, Any

from prefect import State, flow, task
from prefect.cache_policies import NO_CACHE
from prefect.futures import PrefectFuture
from prefect.runtime import flow_run
from prefect.task_runners import ThreadPoolTaskRunner
from prefect.utilities.annotations import quote
from pydantic import Field

from flows.approval import approved, unasked
from flows.cancellation import cancellable
from flows.gpu_batches import MODELS, batches, member
from flows.progress import Progress
from flows.run_logging import ENDS, talk_to_prefect
from flows.run_result import End, Ends, end_in, ends_in, model_state, run_state, short
from infra.settings import settings
from infra.worker.context import worker_context
from packhouse.formats.table import before, in_order
from packhouse.release.manifest import ChannelName
from tasks._support.states import Judged, LeftOut, Released
from tasks._support.subflows import leave
from tasks._support.ui_artifacts import show
from tasks.commit_and_promote import commit_and_promote, promote_again
from tasks.cuda.parity_cuda import parity_cuda
from tasks.fetch import fetch
from tasks.images.build_image import build_image
from tasks.images.canary import canary, unserved
from tasks.make import make_format
from tasks.measure import measure_latency
from tasks.package import package
from tasks.plan import plan
from tasks.publish import publish
from tasks.reference_outputs import reference_outputs
from tasks.register_mlflow import register_mlflow
from tasks.validate_weights import validate_weights

RESULTS = "json"
"""Prefect stores the exception of a failed flow whatever `persist_result` says; never as a pickle."""

THREADS = 16
"""Tasks of one model that may wait at a time; what computes is bounded by the worker's children."""

Source = Annotated[
    str,
    Field(
        min_length=1,
        max_length=2000,
        description="A folder or s3:// prefix that `packhouse stage` wrote: it holds package.toml.",
    ),
]


def line(source: str, channel: ChannelName) -> Released:
    """One model from its source to a release in a channel.

    Raises packhouse.errors.Refused: the model is not released, and why. Unavailable: the world is bad; run it again.
    """
    started = time.monotonic()
    planned = plan(source)
    if planned.record:
        return registered(promote_again(planned.record, planned.spec, channel, source), source)
    gated = validate_weights(fetch(planned))

    reference = reference_outputs.submit(gated)
    made: dict[str, PrefectFuture[Judged | LeftOut]] = {}
    for format in in_order(planned.spec.formats.wanted):  # what others are made from stands before them
        base = made[earlier] if (earlier := before(format)) else None
        made[format] = make_format.submit(gated, format, base, quote(reference), return_state=False)
    referenced = reference.result()
    outcomes = [each.result() for each in made.values()]
    judged = [outcome for outcome in outcomes if isinstance(outcome, Judged)]
    left_out = [outcome for outcome in outcomes if isinstance(outcome, LeftOut)]
    measured, judged, too_slow = measure_latency(gated, judged)
    cuda = parity_cuda(gated, referenced, judged)

    packed, report = package(gated, referenced, measured, judged, [*left_out, *too_slow], cuda=cuda, started=started)
    published = publish(packed, report)
    proven = canary(build_image(published)) if planned.spec.image else unserved(published)
    released = commit_and_promote(proven, channel, source)
    show(report, packed, proven)
    released = registered(released, source)
    return released.model_copy(update={"size": sum(artifact.size for artifact in packed.manifest.artifacts)})


def registered(released: Released, source: str) -> Released:
    """The same, once MLflow knows the release, if this worker knows MLflow."""
    if settings().mlflow_uri:
        register_mlflow(released, source)
    return released


@flow(
    name="release-model",
    flow_run_name="{source}",
    persist_result=False,
    result_serializer=RESULTS,
    task_runner=ThreadPoolTaskRunner(max_workers=THREADS),  # type: ignore[arg-type]
)
def release_model(source: Source, channel: ChannelName = "latest") -> State[Any]:
    """One model: its own row in the run list, its own tasks. Ends in a state that says how, and holds an End."""
    return model_state(source, lambda: line(source, channel))


@task(name="model", task_run_name="{source}", persist_result=False, cache_policy=NO_CACHE)
def model(source: str, channel: ChannelName) -> End:
    """A model's run, apart from the others': whatever it ends in, they go on."""
    started = time.monotonic()
    with member():
        end = end_in(source, release_model(source, channel, return_state=True))
    ENDS.info(end.line())
    return end.model_copy(update={"seconds": time.monotonic() - started})


def _run_name() -> str:
    """Such as `release churn/run-17 and 3 more`."""
    sources = [str(source) for source in flow_run.parameters.get("sources", [])]
    first = short(sources[0]) if sources else "nothing"
    return f"release {first}" + (f" and {len(sources) - 1} more" if len(sources) > 1 else "")


@flow(
    name="release",
    flow_run_name=_run_name,
    persist_result=False,
    result_serializer=RESULTS,
    task_runner=ThreadPoolTaskRunner(max_workers=MODELS),  # type: ignore[arg-type]
)
def release(
    sources: Annotated[list[Source], Field(min_length=1, max_length=1000)],
    channel: ChannelName = "latest",
) -> State[Any]:
    """Release trained models: export, check against the trained model, publish, move a channel.

    Each source is a run of its own: one bad model does not stop the others. Sources that are released and unchanged
    cost next to nothing, so starting this again with the same sources is the way to try again what failed.

    Args:
        sources: What to release: folders or s3:// prefixes that `packhouse stage` wrote.
        channel: The name that moves to the new releases: `latest`, `production`, or one of your own.
    """
    talk_to_prefect()
    distinct = list(dict.fromkeys(sources))
    progress = Progress(len(distinct))
    ends: list[End] = []
    with cancellable(), worker_context().at_work():
        for together in batches(distinct):
            running = [model.submit(source, channel, return_state=False) for source in together]
            ends += [progress.ended(run.result()) for run in running]
        if flow_run.parent_flow_run_id:
            ends = [unasked(end) for end in ends]
            leave(str(flow_run.id), Ends(ends=tuple(ends)))
        else:
            ends = approved(ends)
    return run_state(ends)


def released(sources: list[str], channel: ChannelName = "latest") -> list[End]:
    """`release`, for callers in this process: how each distinct source ended, in order."""
    return ends_in(release(sources, channel, return_state=True))
