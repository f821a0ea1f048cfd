"""What goes to the GPU and comes back, and the rendezvous: the models of one run go over together."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TypeVar

from packhouse.artifact import Artifact, Beside, Frozen, Outcome, Verdict
from packhouse.errors import squeezed
from packhouse.formats.table import Format, row
from packhouse.release.manifest import ReleaseId
from packhouse.spec.model import ModelName

RUNS, REPRODUCES = "cuda-runs", "cuda-reproduces"
"""Two checks, two verdicts: it runs on the GPU; it computes there what the trained model computes."""

TORCH = "torch"
"""The subject of the trained model itself; the other subjects are formats."""


class Cuda(Frozen):
    """What the GPU said of one model: two verdicts a subject. notes: device, versions, settings, for the report."""

    verdicts: tuple[Verdict, ...] = ()
    notes: tuple[str, ...] = ()


class CudaCandidate(Frozen):
    """One model for the GPU. cases: the probes with the trained model's answers. candidates: its fp32 formats. data:
    what belongs beside its ONNX file, where there is such a file."""

    model: ModelName
    release: ReleaseId
    spec_file: Artifact
    weights: Artifact
    cases: Artifact
    candidates: tuple[tuple[Format, Artifact], ...]
    data: Artifact | None = None

    @property
    def files(self) -> tuple[Artifact, ...]:
        data = (self.data,) if self.data else ()
        return (self.spec_file, self.weights, self.cases, *(artifact for _, artifact in self.candidates), *data)

    @property
    def subjects(self) -> dict[str, Artifact]:
        """What is checked -> its file."""
        return {TORCH: self.weights, **{format.value: artifact for format, artifact in self.candidates}}

    def opened(self, subject: str) -> Artifact | Beside:
        """As a job opens it."""
        file = self.subjects[subject]
        return Beside(file=file, data=self.data) if self.data and subject != TORCH and row(subject).data else file

    def verdict(self, check: str, subject: str, outcome: Outcome, reason: str = "") -> Verdict:
        compared = (self.subjects[subject].digest, self.cases.digest)
        return Verdict(check=check, subject=subject, outcome=outcome, compared=compared, reason=reason)

    def not_run(self, reason: str, *notes: str) -> Cuda:
        return Cuda(
            verdicts=tuple(
                self.verdict(check, subject, Outcome.NOT_RUN, reason)
                for subject in self.subjects
                for check in (RUNS, REPRODUCES)
            ),
            notes=notes,
        )

    def answered_by(self, verdicts: Sequence[Verdict]) -> bool:
        """Whether these are all the verdicts on this model, each on these very bytes."""
        want = {(v.check, v.subject, v.compared) for v in self.not_run("asked").verdicts}
        return len(verdicts) == len(want) and {(v.check, v.subject, v.compared) for v in verdicts} == want


TICK_S = 0.2
"""Waiting returns to Python so often: an exception that another thread injects (Prefect cancels so) waits for that."""

COME_S = 300.0
"""A member that has not even come, so long after another began to wait, is not waited for."""

T = TypeVar("T")
Send = Callable[[list[CudaCandidate]], Mapping[str, Cuda]]


@dataclass(eq=False)
class _Seat:
    """A member's place. settled: it has asked or left, so that nobody waits for it."""

    settled: bool = False


class Batch:
    """The models of one run, under way at the same time in threads, go to the GPU in one `send`.

    Each is a `member` while it is under way, and may `ask` once it has a candidate; asking waits until every member
    has asked or left. Then one thread sends all that were asked, and each gets its own answer. A member that comes
    late, or asks after the others were sent, goes in a batch of its own. size: how many members are to come.
    """

    def __init__(self, size: int, send: Send) -> None:
        self._send = send
        self._changed = threading.Condition()
        self._to_come, self._working = size, 0
        self._waiting: dict[_Seat, CudaCandidate] = {}
        self._since = 0.0
        self._answers: dict[str, Cuda] = {}

    @contextmanager
    def member(self) -> Iterator[None]:
        """However it ends, the others do not wait for it any more."""
        seat = _Seat()
        with self._changed:
            self._to_come, self._working = max(0, self._to_come - 1), self._working + 1
        try:
            with _held(_SEAT, seat):
                yield
        finally:
            self._settle(seat)

    def ask(self, candidate: CudaCandidate) -> Cuda:
        """The verdicts on this candidate; "not run" with the reason where it could not be sent. Asked again, the same.

        Raises RuntimeError: the caller is no member.
        """
        if (seat := _SEAT.get()) is None:
            raise RuntimeError("only a member of the batch may ask")
        try:
            with self._changed:
                self._since = self._since if self._waiting else time.monotonic()
                self._waiting[seat] = candidate
            self._settle(seat)
            return self._answer(seat, candidate.release)
        finally:
            with self._changed:
                self._waiting.pop(seat, None)  # of a run that is ended while it waits

    def _settle(self, seat: _Seat) -> None:
        with self._changed:
            self._working -= not seat.settled
            seat.settled = True
            self._changed.notify_all()

    def _answer(self, seat: _Seat, release: str) -> Cuda:
        while True:
            with self._changed:
                if release in self._answers:
                    return self._answers[release]
                together = self._taken(seat)
                if not together:
                    self._changed.wait(TICK_S)
            if together:
                self._send_all(together)

    def _taken(self, seat: _Seat) -> list[CudaCandidate]:
        """All that wait, for the one thread that finds that nobody else is to be waited for."""
        late = time.monotonic() - self._since > COME_S
        if seat not in self._waiting or self._working or (self._to_come and not late):
            return []
        together = {candidate.release: candidate for candidate in self._waiting.values()}
        self._waiting.clear()
        return list(together.values())

    def _send_all(self, together: list[CudaCandidate]) -> None:
        """An answer for each, whatever happens: others wait for it."""
        found: Mapping[str, Cuda] = {}
        reason = "the run that asked the GPU worker was ended"
        try:
            found = self._send(together)
            reason = "the GPU worker gave no answer for this model"
        except Exception as error:  # told in every verdict that is waited for
            reason = f"could not be asked: {type(error).__name__}: {squeezed(error)}"
        finally:
            with self._changed:
                for candidate in together:
                    self._answers[candidate.release] = found.get(candidate.release) or candidate.not_run(reason)
                self._changed.notify_all()


_SEAT: ContextVar[_Seat | None] = ContextVar("seat", default=None)
_BATCH: ContextVar[Batch | str] = ContextVar("batch", default="this run sends nothing to a GPU worker")


def current_batch() -> Batch | str:
    """Or why this run sends nothing."""
    return _BATCH.get()


@contextmanager
def use_batch(batch: Batch | str) -> Iterator[None]:
    """In this thread, and in those that Prefect's task runner starts from it, which copy its context."""
    with _held(_BATCH, batch):
        yield


@contextmanager
def _held(variable: ContextVar[T], value: T) -> Iterator[None]:
    before = variable.get()
    variable.set(value)
    try:
        yield
    finally:
        variable.set(before)
