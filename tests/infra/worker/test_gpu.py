"""What can be held of the GPU's sandbox where there is no GPU."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra.sandbox.client import Sandbox
from infra.worker.context import WorkerContext, worker_context
from infra.worker.gpu import gpu_context
from packhouse.errors import Stopping

ROOT = Path(__file__).parents[3]
COUNT = "tests.support.asks_for_a_gpu:count"


def asked(tmp_path: Path, *, cuda: bool) -> list[str]:
    """What the server had asked of torch before it forked the second job: by then it is warm."""
    options = {"allowed": ("tests.",), "readable": [ROOT / "tests"], "preload": ("tests.support.asks_for_a_gpu",)}
    with Sandbox(**options, cuda=cuda) as sandbox:
        for number in range(2):
            folder = tmp_path / f"{cuda}-{number}"
            folder.mkdir()
            answer = sandbox.run(COUNT, {}, workdir=folder)
    return answer.document["asked"]


@pytest.mark.sandbox
def test_the_server_of_the_gpu_never_asks_for_it_since_a_driver_that_was_started_does_not_survive_a_fork(tmp_path):
    assert asked(tmp_path, cuda=False), "the counter counts nothing"
    assert asked(tmp_path, cuda=True) == []


def test_the_workers_own_workshop_stays_what_it_is_beside_that_of_the_gpu_also_after_an_error(home):
    before, shops = worker_context(), []
    with pytest.raises(KeyError):
        _fail_at_the_gpu(shops)
    assert worker_context() is before
    (shop,) = shops
    with pytest.raises(Stopping):
        shop.run("tasks.jobs.parity_cuda:look", {"device": "cpu"})
    answer, _ = before.run("tasks.jobs.parity_cuda:look", {"device": "cpu"})
    assert answer.document["missing"] == ""


def _fail_at_the_gpu(shops: list[WorkerContext]) -> None:
    before = worker_context()
    with gpu_context() as shop:
        shops.append(shop)
        assert shop is not before
        assert worker_context() is before
        raise KeyError
