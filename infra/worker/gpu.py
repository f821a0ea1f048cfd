"""The GPU of this worker: whether there may be one, and a workshop whose jobs can see it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from infra.sandbox.client import Sandbox
from infra.settings import settings
from infra.worker.context import Workshop, use, workshop

DEVICES = Path("/dev")


def may_have_gpu() -> bool:
    """False where the driver has made no device: then no child has to be started to find out."""
    return any(DEVICES.glob("nvidia[0-9]*"))


@contextmanager
def jobs_see_the_gpu() -> Iterator[None]:
    """Until the end, this process's workshop shows the GPU to its jobs; nothing else of the sandbox is opened.

    Nothing is preloaded: a model package that asks torch for a GPU, as many do when they are imported, would start the
    driver in the server, and after a fork it can not be used."""
    before, given = workshop(), settings()
    sandbox = Sandbox(require=given.require, omit=given.cuda_omit, cuda=True)
    shop = Workshop(given, sandbox)
    use(shop)
    try:
        yield
    finally:
        use(before)
        shop.close()
