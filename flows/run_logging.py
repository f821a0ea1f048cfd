"""What a worker says while it works: to Prefect where a deployment runs, else on stderr, a bar or one line a stage."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from prefect.logging.handlers import APILogHandler
from prefect.runtime import deployment
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

STAGES = logging.getLogger("packhouse.line")
ENDS = logging.getLogger("packhouse.end")
"""Says a line for every model that has ended."""


def talk_to_prefect() -> None:
    """Every stage's line becomes a line of the log of its run, where a work pool's worker runs it."""
    if not deployment.id or any(isinstance(handler, APILogHandler) for handler in STAGES.handlers):
        return
    _listen(APILogHandler(), STAGES, ENDS)
    for logger in (STAGES, ENDS):
        logger.setLevel(logging.INFO)


@contextmanager
def talk(models: int, *, everything: bool) -> Iterator[None]:
    """everything: lines also go up to the root logger, and so into Prefect's."""
    for logger in (STAGES, ENDS):
        logger.setLevel(logging.INFO)
        logger.propagate = everything
    if sys.stderr.isatty() and not everything:
        with _progress() as bar:
            _listen(_Bar(bar, bar.add_task("", total=models)), STAGES, ENDS)
            yield
    else:
        _listen(logging.StreamHandler(sys.stderr), STAGES)
        yield


def _listen(handler: logging.Handler, *loggers: logging.Logger) -> None:
    handler.setFormatter(logging.Formatter("%(message)s"))
    for logger in loggers:
        logger.addHandler(handler)


def _progress() -> Progress:
    from rich.console import Console

    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    return Progress(*columns, console=Console(stderr=True), transient=True)


class _Bar(logging.Handler):
    """Moves by one for each model that has ended; beside it stands what was said last."""

    def __init__(self, bar: Progress, task: TaskID) -> None:
        super().__init__()
        self._bar, self._task = bar, task

    def emit(self, record: logging.LogRecord) -> None:
        ended = 1 if record.name == ENDS.name else 0
        self._bar.update(self._task, advance=ended, description=self.format(record)[:100])
