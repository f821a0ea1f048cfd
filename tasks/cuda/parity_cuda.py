"""Parity on CUDA: does the release compute on a GPU what the trained model computes?

A GPU is another machine, and a flow run there costs seconds: so the models of a run go over together, as references.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from packhouse.artifact import Artifact, Outcome, Verdict
from packhouse.errors import GpuUnavailable, ParityRefused
from packhouse.formats.table import ROWS, Format
from packhouse.release.manifest import Decisions
from packhouse.spec.model import Want
from tasks._support.pipeline_task import one_line, pipeline_task
from tasks._support.states import Judged, Planned, Referenced, Validated
from tasks.cuda.cuda_batch import Batch, Cuda, CudaCandidate, current_batch, use_batch
from tasks.cuda.cuda_pool import cuda_worker, send
from tasks.decisions import decide, decided

__all__ = [
    "Batch",
    "Cuda",
    "CudaCandidate",
    "cuda_worker",
    "current_batch",
    "insist_cuda",
    "parity_cuda",
    "send",
    "use_batch",
]

CHECKED = tuple(Format(each.name) for each in reversed(ROWS.values()) if each.cuda)
"""In the order of their verdicts in a manifest."""
EARLIER = "CUDA: decided in an earlier run of the same inputs"


@pipeline_task("check on CUDA")
def parity_cuda(gated: Validated, referenced: Referenced, judged: Sequence[Judged]) -> Cuda:
    """What an earlier run of the same inputs decided counts: whether a GPU was there today must not change a manifest.

    Raises ParityRefused, GpuUnavailable: the spec requires a pass.
    """
    planned = gated.planned
    if planned.spec.gates.cuda is Want.OFF:
        return Cuda()
    with one_line(planned.model, "check on CUDA") as line:
        candidate = _candidate(gated, referenced, judged)
        before = decided(planned).cuda
        if before is not None and candidate.answered_by(before):
            found = Cuda(verdicts=before, notes=(EARLIER,))
        else:
            found = _asked(candidate)
            found = found.model_copy(update={"verdicts": _remembered(planned, candidate, found.verdicts)})
        line.note(in_short(found.verdicts))
    insist_cuda(planned, found.verdicts)
    return found


def insist_cuda(planned: Planned, verdicts: Sequence[Verdict]) -> None:
    """Where the spec requires the GPU, every check must have passed.

    Raises ParityRefused: one is refused. GpuUnavailable: one was not run; a later run may find a worker.
    """
    if planned.spec.gates.cuda is not Want.REQUIRED:
        return
    for outcome, error in ((Outcome.REFUSED, ParityRefused), (Outcome.NOT_RUN, GpuUnavailable)):
        for verdict in verdicts:
            if verdict.outcome is outcome:
                raise error(f"{verdict.check} {outcome}: {verdict.reason}", where=f"{planned.model}: {verdict.subject}")
    if not verdicts:
        raise GpuUnavailable("PH-0581 was not checked on a GPU", where=planned.model, want='cuda = "required"')


def in_short(verdicts: Sequence[Verdict]) -> str:
    """Such as `4 pass, 2 not run: no worker of pool 'cuda' is online`."""
    found = Counter(verdict.outcome for verdict in verdicts)
    counts = ", ".join(f"{found[outcome]} {outcome}" for outcome in Outcome if found[outcome])
    first = next((verdict.reason for verdict in verdicts if verdict.reason), "")
    return f"{counts}: {first}" if first else counts


def _candidate(gated: Validated, referenced: Referenced, judged: Sequence[Judged]) -> CudaCandidate:
    made: dict[str, Artifact] = {entry.candidate.format: entry.candidate.artifact for entry in judged}
    return CudaCandidate(
        model=gated.planned.model,
        release=gated.planned.release,
        spec_file=gated.spec_file,
        weights=gated.weights,
        cases=referenced.cases,
        data=next(
            (entry.candidate.data for entry in judged if entry.candidate.format in CHECKED and entry.candidate.data),
            None,
        ),
        candidates=tuple((format, made[format]) for format in CHECKED if format in made),
    )


def _asked(candidate: CudaCandidate) -> Cuda:
    batch = current_batch()
    return candidate.not_run(batch) if isinstance(batch, str) else batch.ask(candidate)


def _remembered(planned: Planned, candidate: CudaCandidate, found: tuple[Verdict, ...]) -> tuple[Verdict, ...]:
    """The first decision on these bytes counts. A required check that was not run is none: it waits for a worker."""
    unfinished = any(verdict.outcome is Outcome.NOT_RUN for verdict in found)
    if unfinished and planned.spec.gates.cuda is Want.REQUIRED:
        return found

    def add(before: Decisions) -> Decisions:
        if before.cuda is not None and candidate.answered_by(before.cuda):
            return before
        return before.model_copy(update={"cuda": found})

    return decide(planned, add).cuda or found
