"""Requests computed together: nobody notices, or it is refused."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from packhouse.serving.dynamic_batching import Merging, runner
from packhouse.serving.errors import RequestRefused
from packhouse.serving.metrics import Metrics
from packhouse.serving.model import Model
from packhouse.serving.release import open_release
from packhouse.serving.settings import Choice, from_environment
from tests.packhouse.serving.conftest import serve
from tests.support import served_models


def model(folder: Path) -> Model:
    served = open_release(folder, expected=None, choice=Choice.AUTO, vnni=False, cuda=False, golden=True)
    return Model(served, threads=1, cuda=False)


def merging(found: Model, **changes: str) -> Merging:
    given = {"PACKHOUSE_MAX_BATCH": "8", "PACKHOUSE_RUNS": "1", "PACKHOUSE_BATCH_MS": "100", **changes}
    made = runner(found, from_environment(given), Metrics())
    assert isinstance(made, Merging)
    return made


class Recorded:
    """Runs the model, and remembers how many rows each run had."""

    def __init__(self, found: Model) -> None:
        self.model, self.rows = found, []
        self.lock = threading.Lock()

    def __call__(self, inputs):
        with self.lock:
            self.rows.append(len(next(iter(inputs.values()))))
        return self.model.run(inputs)


def asked_at_once(made: Merging, requests: list) -> list:
    def call(request):
        try:
            return made(request)
        except RequestRefused as error:
            return error

    with ThreadPoolExecutor(len(requests)) as pool:
        return list(pool.map(call, requests))


def test_each_request_gets_its_own_rows_and_no_run_is_larger_than_asked_for(tmp_path):
    served_models.matrix(tmp_path, width=16)
    made = merging(found := model(tmp_path))
    made.run = Recorded(found)
    random = np.random.default_rng(0)
    requests = [{"x": random.normal(size=(1 + n % 3, 16)).astype(np.float32)} for n in range(40)]
    for request, answer in zip(requests, asked_at_once(made, requests), strict=True):
        want = found.run(request)["y"]
        assert answer["y"].shape == want.shape
        np.testing.assert_allclose(answer["y"], want, rtol=1e-5, atol=1e-5)
    assert max(made.run.rows) <= 8
    assert sum(made.run.rows) == sum(len(request["x"]) for request in requests)
    assert len(made.run.rows) < len(requests)


def test_one_request_at_fault_does_not_fail_those_beside_it(tmp_path):
    served_models.mixed(tmp_path)
    made = merging(model(tmp_path), PACKHOUSE_MAX_BATCH="4")
    good = {"tokens": np.array([[1, 2]]), "mask": np.array([[True, True]]), "free": np.array([3])}
    answers = asked_at_once(made, [good, good | {"free": np.array([99])}, good, good])
    assert isinstance(answers[1], RequestRefused)
    assert [answer["picked"].tolist() for n, answer in enumerate(answers) if n != 1] == [[2.5]] * 3


def test_shapes_that_differ_are_not_put_together(tmp_path):
    served_models.mixed(tmp_path)
    made = merging(model(tmp_path), PACKHOUSE_MAX_BATCH="4")
    requests = [
        {"tokens": np.ones((1, time), np.int64), "mask": np.ones((1, time), bool), "free": np.array([0])}
        for time in (2, 3, 2, 5)
    ]
    assert [answer["odd"].shape for answer in asked_at_once(made, requests)] == [(1, 2), (1, 3), (1, 2), (1, 5)]


def test_merging_keeps_to_the_release_s_own_tolerance(tmp_path):
    served_models.matrix(tmp_path / "apart")
    assert merging(model(tmp_path / "apart")).refusal() == ""
    served_models.matrix(tmp_path / "centred", centred=True)
    refusal = merging(model(tmp_path / "centred")).refusal()
    assert refusal.startswith("PACKHOUSE_MAX_BATCH: answers depend on the requests beside: case 'batch 1 times 1'")


@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.server
def test_a_server_that_would_mix_up_rows_is_not_ready(tmp_path, centred):
    served_models.matrix(tmp_path / "release", centred=centred)
    with serve(tmp_path / "release", tmp_path / "log", until="/health", PACKHOUSE_MAX_BATCH="8") as server:
        while (found := server.ask("/ready")).json["status"] == "starting":
            pass
        assert found.json["status"] == ("refused" if centred else "ready")
