"""Watch: finished MLflow runs that carry a source, and have no release run yet, each get one.

The watermark is a tag on the MLflow run, set after the release run is there. A worker that is killed between the two
leaves a run without the tag; the next watch asks for the same release run again, by the same idempotency key, and
Prefect answers with the one there is. No clock decides anything, and nothing is held here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import StrEnum
from uuid import UUID

import httpx
from prefect.artifacts import create_table_artifact
from prefect.exceptions import PrefectHTTPStatusError

from infra.mlflow.tracking import REFUSED, RELEASE_RUN, Tracking, TrainingRun
from infra.settings import settings
from packhouse.artifact import Frozen
from packhouse.digest import digest_bytes
from packhouse.errors import NotFound, PackhouseError, Refused, SpecInvalid, Unavailable, printable, squeezed
from packhouse.spec.model import MAX_SPEC_BYTES, SPEC_FILE
from packhouse.spec.sources import checked_source
from packhouse.store import open_store
from packhouse.training.announce import identity
from tasks._support.pipeline_task import one_line, pipeline_task
from tasks._support.subflows import start

RELEASE = "release/release"
STUCK = 50
"""Sources that can not be read now, and stay as they are. More than so many end the watch: a store is away."""
NAME = 100


class Outcome(StrEnum):
    STARTED = "started"
    REFUSED = "refused"
    UNAVAILABLE = "unavailable"


class Watched(Frozen):
    """One MLflow run. release_run: the id of the flow run that releases its source. reason: why there is none, or why
    it could not be written to the MLflow run."""

    run: str
    name: str
    experiment: str
    source: str
    outcome: Outcome
    release_run: str = ""
    reason: str = ""


@pipeline_task("look at MLflow")
def look(experiments: Sequence[str], limit: int) -> list[Watched]:
    """Starts a release for at most `limit` training runs, the oldest first; the next watch goes on from there.

    Raises NotFound: there is no such experiment. Unavailable: MLflow does not answer. SpecInvalid: its URL is none."""
    tracking, found = Tracking(settings().mlflow_uri), list[Watched]()
    with one_line("watch", "look at MLflow") as line:
        for run in tracking.waiting(experiments, most=limit + STUCK):
            found.append(watched(run, tracking))
            stuck = sum(each.outcome is Outcome.UNAVAILABLE for each in found)
            if stuck > STUCK or len(found) - stuck == limit:
                break
        line.note(f"{len(found)} runs")
    return found


def watched(run: TrainingRun, tracking: Tracking) -> Watched:
    """What became of one training run: on the MLflow run, and here. One that fails stops no other."""
    told = {"run": run.id, "name": run.name, "experiment": run.experiment, "source": _shown(run.source)}
    try:
        tag, value = _answer(run)
        tracking.tag(run.id, tag, value)
    except Unavailable as error:
        return Watched(**told, outcome=Outcome.UNAVAILABLE, reason=str(error))
    if tag == REFUSED:
        return Watched(**told, outcome=Outcome.REFUSED, reason=value)
    return Watched(**told, outcome=Outcome.STARTED, release_run=value)


def _answer(run: TrainingRun) -> tuple[str, str]:
    """The tag that the MLflow run gets. Raises Unavailable: none yet."""
    try:
        return RELEASE_RUN, str(started_release(run))
    except Refused as error:
        return REFUSED, str(error)


def _shown(source: str) -> str:
    """Somebody may have written credentials into it."""
    return re.sub(r"//\S*@", "//…@", printable(source))[:300]


def started_release(run: TrainingRun) -> UUID:
    """The flow run that releases this source as it is now: a new one, or the one there is.

    Raises SourceNotAllowed, NotFound, LimitExceeded: no source that we take. Unavailable: its store or Prefect is away.
    """
    source = checked_source(run.source, settings().sources)
    try:
        data, _ = open_store(source).get(SPEC_FILE, limit=MAX_SPEC_BYTES)
    except NotFound as error:
        next = "stage the source before the run ends; to be asked again, delete this tag"
        raise NotFound(f"PH-0582 no {SPEC_FILE} here", where=source, next=next) from error
    name = f"release of MLflow run {printable(run.name)[:NAME]}"
    return _run(source, name, identity(source, digest_bytes(data)), run.id)


def _run(source: str, name: str, key: UUID, mlflow_run: str) -> UUID:
    try:
        tags = [f"mlflow:{mlflow_run}"]
        return start(RELEASE, {"sources": [source]}, once=str(key), name=name, tags=tags, outlives=True).id
    except SpecInvalid as error:  # it may be made until the next watch
        raise Unavailable(error.coded, where=error.where, next=error.next) from error
    except PrefectHTTPStatusError as error:
        if error.response.status_code in (409, 422):
            raise SpecInvalid(
                f"PH-0602 the deployment does not take it: {error.response.text[:300]}", where=source
            ) from error
        raise _away(error) from error
    except httpx.HTTPError as error:
        raise _away(error) from error


def _away(error: Exception) -> PackhouseError:
    got = f"{type(error).__name__}: {squeezed(error, 200)}"
    return Unavailable(
        "PH-0601 Prefect's API did not start it", where=RELEASE, got=got, next="the next watch asks again"
    )


@pipeline_task("show watch")
def show_watch(found: Sequence[Watched]) -> None:
    """What was not started first."""
    rows = [
        {
            "outcome": each.outcome.value,
            "experiment": each.experiment,
            "run": each.name,
            "why": each.reason,
            "source": each.source,
            "release run": each.release_run,
            "MLflow run": each.run,
        }
        for each in sorted(found, key=lambda each: (each.outcome is Outcome.STARTED, each.experiment, each.name))
    ]
    create_table_artifact(rows, key="watch", description=f"{len(rows)} finished MLflow runs with a source")
