"""Parity on CUDA: on a worker of the pool `cuda`, a batch of models is run on the GPU and judged."""

from __future__ import annotations

from typing import Any

from prefect import State, flow
from prefect.futures import PrefectFuture
from prefect.runtime import flow_run
from prefect.states import Completed
from prefect.task_runners import ThreadPoolTaskRunner

from flows.cancellation import cancellable
from flows.run_logging import talk_to_prefect
from infra.worker.context import WorkerContext
from infra.worker.gpu import gpu_context
from tasks.cuda.cuda_batch import Cuda, CudaCandidate
from tasks.cuda.cuda_pool import Asked, Reference
from tasks.cuda.run_batch import check_on_gpu, failed, fetch_for_gpu, leave_answer, look_for_gpu, take_batch, tally

FETCHES = 4


@flow(
    name="parity-cuda",
    persist_result=False,
    result_serializer="json",
    task_runner=ThreadPoolTaskRunner(max_workers=FETCHES),  # type: ignore[arg-type]
)
def parity_cuda(batch: Reference) -> State[Any]:
    """Run a batch of models on the GPU, and leave the verdicts beside the batch in the store. `release` starts this.

    batch: the document of the store that names the models, by key, digest and size.
    """
    talk_to_prefect()
    asked = take_batch(batch)
    with gpu_context() as shop, cancellable(shop):
        device = look_for_gpu(shop)
        found = _checked(asked, device, shop) if isinstance(device, Cuda) else _none(asked, device)
    leave_answer(batch, str(flow_run.id), found)
    return Completed(message=tally(found.values()))


def _none(asked: Asked, reason: str) -> dict[str, Cuda]:
    return {candidate.release: candidate.not_run(reason) for candidate in asked.candidates}


def _checked(asked: Asked, device: Cuda, shop: WorkerContext) -> dict[str, Cuda]:
    """The GPU has one model at a time, while the files of the next ones come. One that fails does not stop others."""
    found = {}
    fetched = [(candidate, fetch_for_gpu.submit(candidate)) for candidate in asked.candidates]
    for candidate, files in fetched:
        cuda = _result(candidate, files, shop)
        found[candidate.release] = cuda.model_copy(update={"notes": (*device.notes, *cuda.notes)})
    return found


def _result(candidate: CudaCandidate, files: PrefectFuture[CudaCandidate], shop: WorkerContext) -> Cuda:
    try:
        return check_on_gpu(files.result(), shop)
    except Exception as error:  # whatever it is, the other models go on, and the verdict says it
        return failed(candidate, error)
