"""On the GPU worker: takes a batch from the store, runs each model on the GPU, leaves the verdicts in the store."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from infra.worker.context import WorkerContext, worker_context
from infra.worker.gpu import may_have_gpu
from packhouse.artifact import Outcome, Verdict
from packhouse.digest import digest_bytes
from packhouse.errors import PackhouseError, Refused, squeezed, without_paths
from packhouse.release.manifest import dump, load
from tasks._support.pipeline_task import one_line, pipeline_task
from tasks.cuda.cuda_batch import REPRODUCES, RUNS, Cuda, CudaCandidate
from tasks.cuda.cuda_pool import Answered, Asked, Reference, answer_key, work_key
from tasks.export import digested
from tasks.fetch import download

JOB = "tasks.jobs.parity_cuda"
DEVICE = "cuda"
NO_DEVICE = "no CUDA device on this worker"


@pipeline_task("take batch")
def take_batch(batch: Reference) -> Asked:
    """Raises NotFound, DigestMismatch: not these bytes. ReleaseInvalid: they are no batch."""
    data = b"".join(worker_context().store.read(batch.key, digest=batch.digest, size=batch.size))
    return load(Asked, data, where=batch.key)


@pipeline_task("look for gpu")
def look_for_gpu(shop: WorkerContext) -> Cuda | str:
    """The notes on the device, or why there is none. shop: whose jobs see the GPU."""
    if not may_have_gpu():
        return NO_DEVICE
    try:
        answer, _ = shop.run(f"{JOB}:look", {"device": DEVICE})
    except PackhouseError as error:  # a driver that crashes; a host that can not lock a job down as required
        return f"CUDA does not start on this worker: {without_paths(str(error))}"
    return str(answer.document["missing"]) or Cuda(notes=tuple(answer.document["notes"]))


@pipeline_task("fetch for gpu", of="{candidate.model}")
def fetch_for_gpu(candidate: CudaCandidate) -> CudaCandidate:
    """Raises NotFound, DigestMismatch: the store has other bytes than the batch names."""
    with one_line(candidate.model, "fetch for the GPU"):
        for artifact in candidate.files:
            download(worker_context().store, work_key(artifact), artifact)
    return candidate


@pipeline_task("check on gpu", of="{candidate.model}")
def check_on_gpu(candidate: CudaCandidate, shop: WorkerContext) -> Cuda:
    """All that is checked in one child, which starts CUDA once. Then what failed there in a child of its own: a crash
    takes the others with it, and after a fault of the device nothing runs in that process any more."""
    subjects = list(candidate.subjects)
    with one_line(candidate.model, "check on the GPU") as line:
        found = _run(shop, candidate, subjects)
        for subject in subjects if len(subjects) > 1 else ():
            if found[subject].verdicts[0].outcome is Outcome.REFUSED:
                found |= _run(shop, candidate, [subject])
        verdicts = tuple(verdict for cuda in found.values() for verdict in cuda.verdicts)
        line.note(", ".join(f"{v.check} {v.subject} {v.outcome}" for v in verdicts))
    return Cuda(verdicts=verdicts, notes=tuple(dict.fromkeys(note for cuda in found.values() for note in cuda.notes)))


@pipeline_task("leave answer")
def leave_answer(batch: Reference, run: str, found: Mapping[str, Cuda]) -> None:
    data = dump(Answered(batch=batch.digest, found=dict(found)))
    worker_context().store.put(answer_key(batch, run), data, digest=digest_bytes(data))


def failed(candidate: CudaCandidate, error: BaseException) -> Cuda:
    """One model's misfortune on the worker, which says nothing of the model."""
    words = str(error) if isinstance(error, PackhouseError) else f"{type(error).__name__}: {error}"
    return candidate.not_run(f"the GPU worker could not check it: {squeezed(words)}")


def tally(found: Iterable[Cuda]) -> str:
    """In models: such as `3 reproduce, 1 refused, 2 not run`."""
    worst = [_worst(cuda.verdicts) for cuda in found]
    names = {Outcome.PASS: "reproduce", Outcome.REFUSED: "refused", Outcome.NOT_RUN: "not run"}
    return ", ".join(f"{worst.count(outcome)} {name}" for outcome, name in names.items())


def _worst(verdicts: Iterable[Verdict]) -> Outcome:
    outcomes = {verdict.outcome for verdict in verdicts}
    return next(worst for worst in (Outcome.REFUSED, Outcome.NOT_RUN, Outcome.PASS) if worst in outcomes)


def _run(shop: WorkerContext, candidate: CudaCandidate, subjects: list[str]) -> dict[str, Cuda]:
    """By subject. The child's own end is its subjects' end; its notes go with the first."""
    formats = {subject: candidate.opened(subject) for subject in subjects}
    arguments = {"spec": candidate.spec_file, "cases": candidate.cases, "formats": formats, "device": DEVICE}
    try:
        answer, _ = shop.run(f"{JOB}:run", arguments)
    except Refused as error:
        reason = digested(error)
        return {subject: Cuda(verdicts=_crashed(candidate, subject, reason)) for subject in subjects}
    notes = tuple(map(str, answer.document["notes"]))
    return {
        subject: Cuda(verdicts=_verdicts(candidate, subject, answer.document["found"][subject]), notes=notes)
        for subject in subjects
    }


def _verdicts(candidate: CudaCandidate, subject: str, found: Mapping[str, Mapping[str, str]]) -> tuple[Verdict, ...]:
    return tuple(
        candidate.verdict(check, subject, Outcome(found[key]["outcome"]), found[key]["reason"])
        for check, key in ((RUNS, "runs"), (REPRODUCES, "reproduces"))
    )


def _crashed(candidate: CudaCandidate, subject: str, reason: str) -> tuple[Verdict, ...]:
    return (
        candidate.verdict(RUNS, subject, Outcome.REFUSED, reason),
        candidate.verdict(REPRODUCES, subject, Outcome.NOT_RUN, "it does not run"),
    )
