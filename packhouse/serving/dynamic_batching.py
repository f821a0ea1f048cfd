"""How runs are made: each request for itself, or what waits computed together.

Together pays where a run of many rows costs little more than a run of one, as with large matrices (docs/benchmarks.md).
It is off until asked for, because rows computed together may be rounded otherwise than alone, and INT8 with dynamic
ranges lets rows see each other. So a server that is to merge first proves on the golden cases that neighbours do not
matter, by the release's own tolerance, and is not ready if they do.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np

from packhouse.errors import squeezed
from packhouse.formats.arrays import Array, Outputs
from packhouse.formats.runtime import as_text
from packhouse.parity.judge import Case
from packhouse.parity.replay import compare, golden_cases
from packhouse.release.manifest import GOLDEN
from packhouse.serving.errors import RequestRefused
from packhouse.serving.metrics import Metrics
from packhouse.serving.model import Model
from packhouse.serving.settings import ServingSettings

Inputs = Mapping[str, Array]
Found = dict[str, Array]


class Runner(Protocol):
    """callers: threads that may call it at a time, so that it has what it needs."""

    callers: int

    def __call__(self, inputs: Inputs) -> Found: ...

    def refusal(self) -> str:
        """Why runs can not be made like this, in one line; empty where they can."""


def runner(model: Model, settings: ServingSettings, metrics: Metrics) -> Runner:
    batch = model.contract.batch

    def run(inputs: Inputs) -> Found:
        started = time.perf_counter()
        found = model.run(inputs)
        metrics.run(_rows(inputs) if batch else 1, time.perf_counter() - started)
        return found

    return Merging(model, run, settings) if settings.merge_rows > 1 else Single(run, settings.runs)


class Single:
    def __init__(self, run: Callable[[Inputs], Found], callers: int) -> None:
        self._run, self.callers = run, callers

    def __call__(self, inputs: Inputs) -> Found:
        return self._run(inputs)

    def refusal(self) -> str:
        return ""


@dataclass(eq=False)
class Ticket:
    """One request's inputs, and later what came of them. changed: told when it is done, or its turn to lead."""

    inputs: Inputs
    rows: int
    changed: threading.Condition
    key: tuple[tuple[int, ...], ...] = ()
    found: Found | None = None
    error: BaseException | None = None

    def __post_init__(self) -> None:
        self.key = tuple(array.shape[1:] for array in self.inputs.values())

    @property
    def done(self) -> bool:
        return self.found is not None or self.error is not None


@dataclass
class Merging:
    """While one run is under way, requests gather; whoever is first then leads them all through the next one."""

    model: Model
    run: Callable[[Inputs], Found]
    settings: ServingSettings
    callers: int = field(init=False)

    def __post_init__(self) -> None:
        contract, rows = self.model.contract, self.settings.merge_rows
        self._most = min(rows, contract.axes[contract.batch].max) if contract.batch else 1
        self.callers = min(256, self.settings.runs * self._most)
        self._lock = threading.Lock()
        self._waiting: list[Ticket] = []
        self._free = self.settings.runs

    def __call__(self, inputs: Inputs) -> Found:
        ticket = Ticket(inputs, _rows(inputs), threading.Condition(self._lock))
        with self._lock:
            self._waiting.append(ticket)
            self._waiting[0].changed.notify()  # a leader that waits for more
            while not ticket.done and not (self._free and self._waiting and self._waiting[0] is ticket):
                ticket.changed.wait()
            group = [] if ticket.done else self._lead(ticket)
        if group:
            self._together(group)
            with self._lock:
                self._free += 1
                for each in [*group, *self._waiting[:1]]:
                    each.changed.notify()
        if ticket.error is not None:
            raise ticket.error
        assert ticket.found is not None
        return ticket.found

    def _lead(self, ticket: Ticket) -> list[Ticket]:
        """The requests of the next run, this one first. Waits for more of them as long as the settings say."""
        self._free -= 1
        until = time.monotonic() + self.settings.merge_ms / 1000
        while sum(each.rows for each in self._waiting) < self._most and (left := until - time.monotonic()) > 0:
            ticket.changed.wait(left)
        group, rows = [ticket], ticket.rows
        for each in self._waiting[1:]:
            if each.key == ticket.key and rows + each.rows <= self._most:
                group.append(each)
                rows += each.rows
        self._waiting = [each for each in self._waiting if each not in group]
        if self._waiting and self._free:
            self._waiting[0].changed.notify()
        return group

    def _together(self, group: Sequence[Ticket]) -> None:
        """Where a run of several fails, each is run for itself: only the one at fault hears of it."""
        try:
            found = self.run(_joined([each.inputs for each in group]))
            place = 0
            for each in group:
                each.found = {name: array[place : place + each.rows] for name, array in found.items()}
                place += each.rows
        except Exception as error:  # whatever it is, each request learns of its own
            if len(group) == 1:
                group[0].error = error
                return
            for each in group:
                self._together([each])

    def refusal(self) -> str:
        contract = self.model.contract
        aside = [wanted.name for wanted in contract.outputs if wanted.shape[:1] != (contract.batch,)]
        if contract.batch is None or aside:
            what = f"output {aside[0]!r} has not" if contract.batch and aside else "its inputs have not"
            return f"PACKHOUSE_MAX_BATCH: requests can not be merged: {what} the batch as first axis"
        if not self.settings.golden:
            return "PACKHOUSE_MAX_BATCH: requests are merged only where PACKHOUSE_GOLDEN is on"
        text, golden = self.model.served.manifest.text, golden_cases(self.model.served.folder / GOLDEN)
        cases = [replace(case, inputs=as_text(case.inputs, text)) for case in golden]
        try:
            answers = [self._beside(case, cases) for case in cases]
        except RequestRefused as error:
            return f"PACKHOUSE_MAX_BATCH: golden cases can not be merged: {squeezed(error)}"
        seen = compare(cases, answers, self.model.served.made.tolerance).refusal
        return f"PACKHOUSE_MAX_BATCH: answers depend on the requests beside: {seen}" if seen else ""

    def _beside(self, case: Case, cases: Sequence[Case]) -> Outputs:
        """The case's answers with other rows before it: those of the largest values, which disturb the most."""
        assert self.model.contract.batch is not None
        room = self.model.contract.axes[self.model.contract.batch].max - _rows(case.inputs)
        alike = [other for other in cases if other is not case and _shapes(other) == _shapes(case)]
        if not alike or not room:
            return self.model.run(case.inputs)
        loudest = max(alike, key=lambda other: max(float(np.abs(array).max()) for array in _numbers(other)))
        before = {name: array[:room] for name, array in loudest.inputs.items()}
        found = self.model.run(_joined([before, case.inputs]))
        return {name: array[_rows(before) :] for name, array in found.items()}


def _joined(some: Sequence[Inputs]) -> Inputs:
    if len(some) == 1:
        return some[0]
    return {name: np.concatenate([each[name] for each in some]) for name in some[0]}


def _rows(inputs: Inputs) -> int:
    return len(next(iter(inputs.values())))


def _shapes(case: Case) -> list[tuple[int, ...]]:
    return [array.shape[1:] for array in case.inputs.values()]


def _numbers(case: Case) -> list[Array]:
    """Text has no size."""
    return [array.astype(np.float64) for array in case.inputs.values() if array.dtype.kind in "biuf"] or [np.zeros(1)]
