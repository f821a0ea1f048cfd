"""Watch: training runs that MLflow knows to be finished get their release, and none of them twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Any

from prefect import State, flow
from prefect.states import Completed, Failed
from pydantic import Field

from flows.cancellation import cancellable
from flows.run_logging import talk_to_prefect
from infra.settings import settings
from tasks.night.watch import Outcome, Watched, look, show_watch

Experiment = Annotated[str, Field(min_length=1, max_length=500)]


@flow(name="watch", flow_run_name="watch", persist_result=False, result_serializer="json")
def watch(
    experiments: Annotated[list[Experiment], Field(max_length=100)] = [],  # noqa: B006 - Prefect's form wants a list
    limit: Annotated[int, Field(ge=1, le=1000)] = 200,
) -> State[Any]:
    """Start a release for every finished MLflow run that carries the tag `packhouse.source` and has none yet.

    The release's flow run is written back to the MLflow run as `packhouse.release-run`; a source that is refused, with
    the reason as `packhouse.refused`. To have one looked at again, delete that tag.

    Args:
        experiments: MLflow experiments, by name; nothing means every one.
        limit: Releases to start, at most; the next watch goes on where this one ends.
    """
    talk_to_prefect()
    if not settings().mlflow_uri:
        return Completed(name="Nothing to watch", message="PACKHOUSE_MLFLOW_URI is not set on this worker")
    with cancellable():
        found = look(experiments, limit)
        if found:
            show_watch(found)
    return _state(found, limit)


def _state(found: Sequence[Watched], limit: int) -> State[Any]:
    counts = Counter(each.outcome for each in found)
    words = ", ".join(f"{counts[outcome]} {outcome}" for outcome in Outcome if counts[outcome]) or "no new runs"
    if counts[Outcome.STARTED] + counts[Outcome.REFUSED] == limit:
        words += f" (limit {limit}: the next watch goes on)"
    bad = [f"{each.name}: {each.reason}" for each in found if each.outcome is not Outcome.STARTED]
    if not bad:
        return Completed(name="Started" if found else "Nothing new", message=words)
    name = "Unavailable" if counts[Outcome.UNAVAILABLE] else "Refused"
    return Failed(name="Partial" if counts[Outcome.STARTED] else name, message=f"{words}: {'; '.join(bad[:5])}")
