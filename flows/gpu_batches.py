"""Which models of a run are under way together, and so go to the GPU together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext

from infra.settings import settings
from tasks.cuda.parity_cuda import Batch, cuda_worker, current_batch, send, use_batch

MODELS = settings().models
"""Models of one run that are under way at a time; what computes is bounded by the worker's children."""


def batches(sources: Sequence[str]) -> Iterator[Sequence[str]]:
    """All at once where no GPU worker is online: then nobody waits for others. Else as many as run at the same time,
    since the models of a batch wait for each other before they go over."""
    if why_not := cuda_worker():
        with use_batch(why_not):
            yield sources
        return
    for first in range(0, len(sources), MODELS):
        together = sources[first : first + MODELS]
        with use_batch(Batch(len(together), send)):
            yield together


def member() -> AbstractContextManager[None]:
    """While a model is under way, its batch counts on it."""
    batch = current_batch()
    return batch.member() if isinstance(batch, Batch) else nullcontext()
