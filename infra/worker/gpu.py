"""The GPU of this worker: whether there may be one, and a context whose jobs see it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from infra.sandbox.client import Sandbox
from infra.settings import settings
from infra.worker.context import WorkerContext, shown_packages

DEVICES = Path("/dev")


def may_have_gpu() -> bool:
    """False where the driver has made no device: then no child has to be started to find out."""
    return any(DEVICES.glob("nvidia[0-9]*"))


@contextmanager
def gpu_context() -> Iterator[WorkerContext]:
    """A context, closed at the end, whose jobs see the GPU; nothing else of the sandbox is opened.

    This process's own context stays as it is. Nothing is preloaded: a model package that asks torch for a GPU, as many
    do when they are imported, would start the driver in the server, and after a fork it can not be used."""
    given = settings()
    sandbox = Sandbox(require=given.require, omit=given.cuda_omit, cuda=True, packages=shown_packages())
    shop = WorkerContext(given, sandbox)
    try:
        yield shop
    finally:
        shop.close()
