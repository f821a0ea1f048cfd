"""Release: one source goes down the line and becomes a release, or is refused with one clear line."""

from __future__ import annotations

import time

from prefect import State, flow
from prefect.task_runners import ThreadPoolTaskRunner

from flows.ends import End, end_of
from flows.talk import ENDS
from packhouse.manifest import ChannelName
from tasks.commit import commit, promote
from tasks.export import export
from tasks.fetch import fetch
from tasks.gate import gate
from tasks.judge import judge
from tasks.measure import measure, pays
from tasks.pack import insist, pack
from tasks.plan import plan
from tasks.publish import publish, upload
from tasks.quantise import quantise
from tasks.refer import refer
from tasks.report import report
from tasks.states import Judged, LeftOut, Released

RESULTS = "json"
"""Prefect stores the exception of a failed flow whatever `persist_result` says; never as a pickle."""

THREADS = 16
"""Tasks of one model that may wait at a time; what computes is bounded by the worker's children."""


@flow(
    name="release-model",
    flow_run_name="{source}",
    persist_result=False,
    result_serializer=RESULTS,
    task_runner=ThreadPoolTaskRunner(max_workers=THREADS),  # type: ignore[arg-type]
)
def release_model(source: str, channel: ChannelName = "latest") -> Released:
    """source: the folder or s3:// prefix that `packhouse stage` wrote. channel: the name that moves to the release.

    Raises packhouse.errors.Refused: the model is not released, and why. Unavailable: the world is bad; run it again.
    """
    started = time.monotonic()
    planned = plan(source)
    if planned.record:
        return promote(planned.record, channel, again=True)
    fetched = fetch(planned)
    gated = gate(fetched)

    asked = refer.submit(gated)
    wanted = planned.spec.formats.wanted
    made = {format: export.submit(gated, format) for format in wanted if not format.int8}
    for format in (format for format in wanted if format.int8):
        made[format] = quantise.submit(gated, format, made[format.base], return_state=False)

    referenced = asked.result()
    verdicts = [judge.submit(gated, referenced, candidate, return_state=False) for candidate in made.values()]
    uploads = [upload.submit(gated, verdict, return_state=False) for verdict in verdicts]
    for candidate in made.values():
        candidate.result()  # where making failed, its own error comes out and not that of what waited for it
    outcomes = [verdict.result() for verdict in verdicts]
    judged = [outcome for outcome in outcomes if isinstance(outcome, Judged)]
    left_out = [outcome for outcome in outcomes if isinstance(outcome, LeftOut)]
    insist(planned, left_out)
    measured = measure(gated, referenced, judged)
    judged, too_slow = pays(gated, judged, measured)

    packed = pack(gated, referenced, judged, [*left_out, *too_slow])
    summary = report(gated, referenced, measured, packed, time.monotonic() - started)
    published = publish(packed, summary, [done.result() for done in uploads])
    record = commit(published)
    return promote(record, channel)


@flow(name="release", flow_run_name="release-{sources}", persist_result=False, result_serializer=RESULTS)
def release(sources: list[str], channel: ChannelName = "latest") -> list[End]:
    """Every source in turn, each a run of its own: one bad model does not stop the others."""
    ends = []
    for source in sources:
        ends.append(end_of(source, _result(release_model(source, channel, return_state=True))))
        ENDS.info(ends[-1].line())
    return ends


def _result(state: State[Released]) -> Released | BaseException:
    """A run that crashed or was cancelled has no result, but raises."""
    try:
        result: Released | BaseException = state.result(raise_on_failure=False)
    except Exception as error:  # whatever it is, the other models go on
        return error
    return result
