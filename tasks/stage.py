"""What makes a function a stage of the line: a Prefect task that persists nothing and retries only what can help."""

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

P = ParamSpec("P")
R = TypeVar("R")

log = logging.getLogger("packhouse.line")


def stage(name: str, of: str = "") -> Callable[[Callable[P, R]], Task[P, R]]:
    """of: what a run of it works on, by its parameters, such as `{format}`; a run list shows it.

    Results are not persisted: a stored Prefect result names its own deserialiser. The release is the cache."""
    return task(
        name=name,
        task_run_name=f"{name} {of}".strip(),
        persist_result=False,
        cache_policy=NO_CACHE,
        retries=3,
        retry_delay_seconds=exponential_backoff(2),
        retry_jitter_factor=0.5,
        retry_condition_fn=_helps,
    )


async def _helps(task: Task[Any, Any], run: TaskRun, state: State[Any]) -> bool:
    """Only an Unavailable world can be better in a moment; bad input stays bad, and wrong credentials too. A GPU worker
    that is not there is not there in a moment."""
    error = await state.aresult(raise_on_failure=False)
    return isinstance(error, Unavailable) and not isinstance(
        error, StoreRefusal | RegistryRefusal | KeyAbsent | Stopping | GpuUnavailable
    )


class Line:
    """Says what a stage did, in one line."""

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
