"""What makes a function a step of the pipeline: a Prefect task that persists nothing and retries only what can help."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar

from prefect import Task, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.tasks import exponential_backoff

from packhouse.artifact import Artifact
from packhouse.digest import short
from packhouse.errors import GpuUnavailable, KeyAbsent, RegistryRefusal, Stopping, StoreRefusal, Unavailable
from packhouse.store.retrying import Patience

P = ParamSpec("P")
R = TypeVar("R")

log = logging.getLogger("packhouse.line")

RETRIES, PAUSE_S = 3, 2.0
HOPELESS = (StoreRefusal, RegistryRefusal, KeyAbsent, Stopping, GpuUnavailable)
"""Waiting does not help: only a person can, or the run is ending, or no GPU worker will be there in a moment."""


def pipeline_task(name: str, of: str = "", *, retries: int = RETRIES) -> Callable[[Callable[P, R]], Task[P, R]]:
    """of: what a run of it works on, by its parameters, such as `{format}`; a run list shows it. retries: 0 for a task
    of several steps of which none may be done twice; each step is then `patient`.

    Results are not persisted: a stored Prefect result names its own deserialiser. The release is the cache."""
    return task(
        name=name,
        task_run_name=f"{name} {of}".strip(),
        persist_result=False,
        cache_policy=NO_CACHE,
        retries=retries,
        retry_delay_seconds=exponential_backoff(PAUSE_S),
        retry_jitter_factor=0.5,
        retry_condition_fn=_helps,
    )


async def _helps(task: Task[Any, Any], run: TaskRun, state: State[Any]) -> bool:
    """Only an Unavailable world can be better in a moment; bad input stays bad, and wrong credentials too."""
    error = await state.aresult(raise_on_failure=False)
    return isinstance(error, Unavailable) and not isinstance(error, HOPELESS)


def patient(step: Callable[P, R]) -> Callable[P, R]:
    """The step, tried again as often as a task: one of several steps of a task."""
    patience = Patience(attempts=1 + RETRIES, first_pause_s=2 * PAUSE_S)

    def tried(*arguments: P.args, **options: P.kwargs) -> R:
        return patience.again(lambda: step(*arguments, **options), after=Unavailable, never=HOPELESS)

    return tried


class Line:
    """Says what a step did, in one line."""

    def __init__(self) -> None:
        self.words: list[str] = []

    def made(self, *artifacts: Artifact) -> None:
        self.words += [f"{artifact.name} {short(artifact.digest)} {artifact.size:,} bytes" for artifact in artifacts]

    def note(self, words: str) -> None:
        self.words.append(words)


@contextmanager
def one_line(model: str, what: str) -> Iterator[Line]:
    """One line in, one line out: model, stage, digest, bytes, seconds."""
    line, started = Line(), time.perf_counter()
    log.info("%s: %s ...", model, what)
    try:
        yield line
    except BaseException as error:
        log.info("%s: %s: %s: %s", model, what, type(error).__name__, error)
        raise
    log.info("%s: %s: %s (%.1f s)", model, what, ", ".join(line.words) or "done", time.perf_counter() - started)
