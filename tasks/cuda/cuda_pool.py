"""Sends a batch to a worker of the pool `cuda` and waits for what it says. References only; bytes go by the store."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Annotated

from prefect.client.schemas.objects import FlowRun, StateType
from prefect.runtime import flow_run
from pydantic import Field

from infra.settings import settings
from infra.worker.context import worker_context
from packhouse.artifact import Artifact, Digest, Frozen
from packhouse.digest import digest_bytes
from packhouse.errors import NotFound, ReleaseInvalid, RunLost, SpecInvalid, Unavailable
from packhouse.release.manifest import MAX_DOCUMENT_BYTES, ReleaseId, dump, load
from tasks._support.subflows import ended, nobody_in, start
from tasks.cuda.cuda_batch import Cuda, CudaCandidate
from tasks.night.cleanup import KEEP_S

DEPLOYMENT = "parity-cuda/parity-cuda"
log = logging.getLogger("packhouse.line")


class Reference(Frozen):
    """The parameter of a flow run: which document of the store holds its batch, and its very bytes."""

    key: Annotated[str, Field(pattern=r"^_work/parity/[0-9a-f]{64}/request\.json$")]
    digest: Digest
    size: Annotated[int, Field(ge=1, le=MAX_DOCUMENT_BYTES)]


class Asked(Frozen):
    """A batch: what the GPU worker is to check."""

    candidates: Annotated[tuple[CudaCandidate, ...], Field(min_length=1)]


class Answered(Frozen):
    """What the GPU worker found, by release. batch: the digest of what it was asked."""

    batch: Digest
    found: dict[ReleaseId, Cuda]


def work_key(artifact: Artifact) -> str:
    return f"_work/sha256/{artifact.digest.removeprefix('sha256:')}/{artifact.name}"


def answer_key(batch: Reference, run: str) -> str:
    return f"{batch.key.rpartition('/')[0]}/answer-{run}.json"


def cuda_worker() -> str:
    """Empty where a worker of the GPU's pool is online now, else why none is."""
    return nobody_in(settings().cuda_pool)


def send(candidates: Sequence[CudaCandidate]) -> dict[str, Cuda]:
    """The verdicts by release; "not run" with the reason for all where no worker is online, it takes longer than
    `cuda_wait_s`, or its run fails."""
    if reason := cuda_worker():
        return _not_run(candidates, reason)
    batch = _put(candidates)
    others = f" and {len(candidates) - 1} more" if len(candidates) > 1 else ""
    name = f"parity-cuda {candidates[0].model}{others}"
    try:
        run = start(DEPLOYMENT, {"batch": batch.model_dump()}, once=_once(batch), name=name)
    except SpecInvalid as error:
        return _not_run(candidates, str(error))
    log.info("%s models are sent to the GPU worker, flow run %s", len(candidates), run.id)
    if reason := _wait(run):
        return _not_run(candidates, reason, f"CUDA: flow run {run.id}: {reason}")
    return _answer(candidates, batch, str(run.id))


def _wait(run: FlowRun) -> str:
    """Empty where the run completed, else why not."""
    try:
        state = ended(run, within_s=settings().cuda_wait_s, hopeless=cuda_worker)
    except RunLost as error:
        return f"the GPU worker gave no answer: {error.what}"
    completed = state.type is StateType.COMPLETED
    return "" if completed else f"the GPU worker gave no answer: its flow run ended as {state.name}"


def _not_run(candidates: Sequence[CudaCandidate], reason: str, *notes: str) -> dict[str, Cuda]:
    return {candidate.release: candidate.not_run(reason, *notes) for candidate in candidates}


def _put(candidates: Sequence[CudaCandidate]) -> Reference:
    """The files under their digests, so that the same ones go up once; then the document that names them."""
    shop = worker_context()
    for artifact in {work_key(file): file for candidate in candidates for file in candidate.files}.values():
        if not _stays(work_key(artifact)):
            shop.store.put(work_key(artifact), shop.cache.path(artifact), digest=artifact.digest)
    data = dump(Asked(candidates=tuple(candidates)))
    digest = digest_bytes(data)
    key = f"_work/parity/{digest.removeprefix('sha256:')}/request.json"
    shop.store.put(key, data, digest=digest)
    return Reference(key=key, digest=digest, size=len(data))


def _stays(key: str) -> bool:
    """Whether it is there, and will not be swept away while the GPU worker needs it."""
    stat = worker_context().store.stat(key)
    return stat is not None and time.time() - stat.modified < KEEP_S / 2


def _once(batch: Reference) -> str | None:
    """A task that is tried again meets the run that it started before; a run that a person retries starts another."""
    return f"{batch.digest}-{flow_run.id}-{flow_run.run_count}" if flow_run.id else None


def _answer(candidates: Sequence[CudaCandidate], batch: Reference, run: str) -> dict[str, Cuda]:
    """What the worker wrote is checked as everything that comes from elsewhere: it must be on these very bytes."""
    key = answer_key(batch, run)
    try:
        data, _ = worker_context().store.get(key, limit=MAX_DOCUMENT_BYTES)
        answered = load(Answered, data, where=key)
    except NotFound:
        return _not_run(candidates, "the GPU worker left no answer: does it use the same store?")
    except (ReleaseInvalid, Unavailable) as error:
        return _not_run(candidates, f"the GPU worker's answer can not be read: {error.what}")
    if answered.batch != batch.digest:
        return _not_run(candidates, "the GPU worker answered another batch")
    return {candidate.release: _checked(candidate, answered.found.get(candidate.release)) for candidate in candidates}


def _checked(candidate: CudaCandidate, found: Cuda | None) -> Cuda:
    if found is None or not candidate.answered_by(found.verdicts):
        return candidate.not_run("the GPU worker did not answer for these files")
    return found
