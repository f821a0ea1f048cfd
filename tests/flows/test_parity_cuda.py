"""The way to a GPU worker and back, on a real Prefect server with a real worker on the pool that has no GPU."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolUpdate
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.sorting import FlowRunSort

from flows import parity_cuda as flows_parity_cuda
from flows.parity_cuda import parity_cuda
from flows.release import released
from flows.run_result import Status
from infra.settings import settings
from infra.worker.context import worker_context
from infra.worker.gpu import may_have_gpu
from packhouse.artifact import Outcome
from packhouse.release.lookup import find, read_manifest
from packhouse.release.manifest import load
from packhouse.spec.model import Format
from packhouse.store import open_store
from tasks._support import subflows as runs_of_deployments
from tasks._support.subflows import nobody_in
from tasks.cuda import cuda_pool, run_batch
from tasks.cuda.cuda_batch import REPRODUCES, RUNS, Cuda, CudaCandidate
from tasks.cuda.cuda_pool import Answered, Reference, answer_key, cuda_worker, send
from tests.servers.place import until
from tests.support import cluster
from tests.tasks.cuda.test_parity_cuda import Made, made, planned

pytestmark = [pytest.mark.flow, pytest.mark.usefixtures("api")]

ROOT = Path(__file__).parents[2]
LONG_S = 240.0
CHECKED = {"program": "off", "onnx-int8": "off", "torchscript-int8": "off"}
NO_GPU = {"no CUDA device on this worker", "torch on this worker is built without CUDA"}


@pytest.fixture
def configured(home, monkeypatch) -> Iterator[Callable[..., None]]:
    """Sets settings of this process; the context stays."""

    def configure(**values: object) -> None:
        for name, value in values.items():
            monkeypatch.setenv(f"PACKHOUSE_{name.upper()}", str(value))
        settings.cache_clear()

    yield configure
    settings.cache_clear()


@contextmanager
def deployed(pool_name: str, environment: Mapping[str, str]) -> Iterator[None]:
    """The deployment on this pool. environment: of its runs, besides the worker's own."""
    with get_client(sync_client=True) as client:
        deployment = client.create_deployment(
            client.create_flow(parity_cuda),
            "parity-cuda",
            entrypoint="flows.parity_cuda.parity_cuda",
            work_pool_name=pool_name,
            pull_steps=[{"prefect.deployments.steps.set_working_directory": {"directory": str(ROOT)}}],
            job_variables={"env": dict(environment)},
        )
        try:
            yield
        finally:
            client.delete_deployment(deployment)


@contextmanager
def new_pool() -> Iterator[str]:
    name = cluster.pool(f"cuda-{uuid4().hex}")
    yield name
    with get_client(sync_client=True) as client:
        client.delete_work_pool(name)


@pytest.fixture
def pool(configured: Callable[..., None]) -> Iterator[str]:
    """A work pool of the test's own, and the deployment on it. Nobody works there."""
    with new_pool() as name, deployed(name, {}):
        configured(cuda_pool=name)
        yield name


class Workers:
    """`prefect worker start` on one pool: a process that tests share until one of them kills it."""

    def __init__(self, pool_name: str, log: Path) -> None:
        self.pool, self._log = pool_name, log
        self._now: cluster.Worker | None = None

    def online(self) -> cluster.Worker:
        """The process, once the server has heard from it."""
        if self._now is None or self._now.process.poll() is not None:
            forget_workers(self.pool)
            self._now = cluster.Worker(self.pool, {"PREFECT_LOGGING_LEVEL": "INFO"}, self._log)
        worker = self._now
        until(lambda: worker.process.poll() is not None or nobody_in(self.pool) == "", seconds=LONG_S)
        assert worker.process.poll() is None, self._log.read_text()
        return worker

    def stop(self) -> None:
        if self._now:
            self._now.stop()


def forget_workers(pool_name: str) -> None:
    """As if none had ever been there."""
    with get_client(sync_client=True) as client:
        for worker in client.read_workers_for_work_pool(pool_name):
            path = {"work_pool_name": pool_name, "name": worker.name}
            client.request("DELETE", "/work_pools/{work_pool_name}/workers/{name}", path_params=path)


@pytest.fixture(scope="module")
def workers(api: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workers]:
    with new_pool() as name:
        shared = Workers(name, tmp_path_factory.mktemp("workers") / "worker.log")
        try:
            yield shared
        finally:
            shared.stop()


@pytest.fixture
def worker(workers: Workers, configured: Callable[..., None], home: Path) -> Iterator[cluster.Worker]:
    """A worker that is online, on whose pool the deployment is. Its runs work in this home."""
    configured(cuda_pool=workers.pool)
    with deployed(workers.pool, {"PACKHOUSE_HOME": str(home)}):
        yield workers.online()


def runs() -> list[FlowRun]:
    """All runs of the deployment, the latest first."""
    with get_client(sync_client=True) as client:
        deployment = client.read_deployment_by_name("parity-cuda/parity-cuda")
        every = client.read_flow_runs(sort=FlowRunSort.EXPECTED_START_TIME_DESC, limit=200)
    return [run for run in every if run.deployment_id == deployment.id]


def held(model: Made) -> CudaCandidate:
    """With files that are in the cache, so that they can be sent."""
    cache, text = worker_context().cache, "text/plain"
    files = {
        name: cache.write(f"{name} of {model.gated.planned.model}".encode(), name=f"{name}.txt", media_type=text)
        for name in ("spec_file", "weights", "cases")
    }
    return model.asked.model_copy(update=files)


def reasons(found: Cuda) -> set[str]:
    assert {verdict.outcome for verdict in found.verdicts} == {Outcome.NOT_RUN}
    return {verdict.reason for verdict in found.verdicts}


def test_a_pool_that_does_not_exist_that_has_no_worker_or_that_is_paused_is_found_at_once(
    home, staged, configured, pool
):
    model = held(planned(staged("linear")))
    assert reasons(send([model])[model.release]) == {f"no worker of the work pool {pool!r} is online"}
    with get_client(sync_client=True) as client:
        client.update_work_pool(pool, WorkPoolUpdate(is_paused=True))
    assert reasons(send([model])[model.release]) == {f"the work pool {pool!r} is paused"}
    configured(cuda_pool="no-such-pool")
    assert reasons(send([model])[model.release]) == {"there is no work pool 'no-such-pool'"}
    assert not runs()


def test_an_api_that_does_not_answer_is_a_reason_and_no_crash(home, monkeypatch):
    from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api", PREFECT_CLIENT_MAX_RETRIES: 0}):
        assert cuda_worker().startswith("Prefect's API did not say whether a worker of 'cuda' is online")


def test_a_release_sends_its_models_together_and_a_worker_without_a_gpu_answers_not_run_for_each(home, staged, worker):
    ends = released([staged("linear", formats=CHECKED), staged("tied", formats=CHECKED)])
    assert [end.status for end in ends] == [Status.RELEASED, Status.RELEASED], ends
    for end in ends:
        found = find(open_store(str(home / "store")), f"{end.model}@latest")
        verdicts = [v for v in read_manifest(found, found.record).verdicts if v.check in (RUNS, REPRODUCES)]
        assert {v.subject for v in verdicts} == {"torch", "torchscript", "onnx"}
        assert may_have_gpu() or reasons(Cuda(verdicts=tuple(verdicts))) <= NO_GPU
    (run,) = runs()
    assert may_have_gpu() or run.state.message == "0 reproduce, 0 refused, 2 not run"
    assert run.name.startswith("parity-cuda ")
    assert run.name.endswith(" and 1 more")
    assert run.parent_task_run_id is not None
    assert run.parameters.keys() == {"batch"}
    assert run.parameters["batch"].keys() == {"key", "digest", "size"}


def test_a_worker_whose_run_fails_is_not_run_with_the_reason(home, staged, worker, tmp_path, monkeypatch):
    model = held(planned(staged("linear")))
    monkeypatch.setattr(cuda_pool, "_put", lambda candidates: nowhere())
    assert reasons(send([model])[model.release]) == {"the GPU worker gave no answer: its flow run ended as Failed"}


def nowhere() -> Reference:
    digest = f"sha256:{'0' * 64}"
    return Reference(key=f"_work/parity/{'0' * 64}/request.json", digest=digest, size=10)


def test_a_worker_that_was_killed_is_waited_for_no_longer_than_the_limit_and_its_run_is_cancelled(
    home, staged, worker, configured
):
    worker.kill()
    configured(cuda_wait_s=2)
    model = held(planned(staged("linear")))
    assert reasons(send([model])[model.release]) == {"the GPU worker gave no answer: did not end within 2 s"}
    (run,) = runs()
    assert run.state.is_cancelled()


def test_a_worker_that_goes_before_it_took_the_run_is_noticed_long_before_the_limit(
    home, staged, workers, worker, monkeypatch
):
    worker.kill()
    monkeypatch.setattr(runs_of_deployments, "LOOK_AGAIN_S", 0.5)
    model, found = held(planned(staged("linear"))), {}
    thread = threading.Thread(target=lambda: found.update(send([model])), daemon=True)
    thread.start()
    until(lambda: bool(runs()), seconds=LONG_S)
    forget_workers(workers.pool)
    thread.join(LONG_S)
    assert reasons(found[model.release]) == {
        f"the GPU worker gave no answer: no worker of the work pool {workers.pool!r} is online"
    }
    (run,) = runs()
    assert run.state.is_cancelled()


def test_where_the_deployment_is_missing_the_reason_says_so(home, staged, worker, monkeypatch):
    monkeypatch.setattr(cuda_pool, "DEPLOYMENT", "parity-cuda/other")
    model = held(planned(staged("linear")))
    assert reasons(send([model])[model.release]) == {
        "parity-cuda/other: there is no such deployment; `make deploy` creates it (PH-0591)"
    }


def batch_of(models: list[Made]) -> Reference:
    return cuda_pool._put([asked(model) for model in models])


def asked(model: Made) -> CudaCandidate:
    made_of = {entry.format: entry.artifact for entry in model.candidates}
    return model.asked.model_copy(update={"candidates": tuple(made_of.items())})


def answer_of(batch: Reference) -> dict[str, Cuda]:
    """What the only run left."""
    (key,) = [stat.key for stat in worker_context().store.list("_work/parity/") if "/answer-" in stat.key]
    assert key == answer_key(batch, str(UUID(key[-41:-5])))
    data, _ = worker_context().store.get(key, limit=1 << 24)
    answered = load(Answered, data, where=key)
    assert answered.batch == batch.digest
    return answered.found


@pytest.fixture
def on_the_cpu(monkeypatch) -> None:
    """As if the CPU were the GPU: the same flow and the same job."""
    monkeypatch.setattr(run_batch, "DEVICE", "cpu")
    monkeypatch.setattr(run_batch, "may_have_gpu", lambda: True)


def test_healthy_models_reproduce_and_the_notes_name_the_device_that_no_verdict_names(home, staged, on_the_cpu):
    model = made(staged("linear"))
    batch = batch_of([model])
    state = parity_cuda(batch, return_state=True)
    assert state.message == "1 reproduce, 0 refused, 0 not run"
    (found,) = answer_of(batch).values()
    assert asked(model).answered_by(found.verdicts)
    assert {(v.check, v.subject, v.outcome.value) for v in found.verdicts} == {
        (check, subject, "pass") for check in (RUNS, REPRODUCES) for subject in ("torch", "torchscript", "onnx")
    }
    assert any(note.startswith("device: cpu") for note in found.notes)


def test_a_crash_on_one_format_of_one_model_leaves_every_other_verdict(home, staged, on_the_cpu, monkeypatch):
    monkeypatch.setattr(run_batch, "JOB", "tests.support.on_the_gpu")
    knows_jobs_of_tests = nullcontext(worker_context())
    monkeypatch.setattr(flows_parity_cuda, "gpu_context", lambda: knows_jobs_of_tests)
    unlucky, other = made(staged("linear", name="unlucky")), made(staged("tied"))
    batch = batch_of([unlucky, other])
    assert parity_cuda(batch, return_state=True).message == "1 reproduce, 1 refused, 0 not run"
    found = answer_of(batch)
    verdicts = {(v.check, v.subject): v for v in found[unlucky.asked.release].verdicts}
    assert "SIGSEGV" in verdicts[RUNS, Format.TORCHSCRIPT].reason
    assert verdicts[REPRODUCES, Format.TORCHSCRIPT].outcome is Outcome.NOT_RUN
    assert {v.outcome for (_, subject), v in verdicts.items() if subject != Format.TORCHSCRIPT} == {Outcome.PASS}
    assert {v.outcome for v in found[other.asked.release].verdicts} == {Outcome.PASS}


def test_a_file_that_is_not_what_the_batch_names_is_never_opened_and_the_next_model_is_checked(
    home, staged, on_the_cpu
):
    broken, other = made(staged("linear")), made(staged("tied"))
    batch = batch_of([broken, other])
    key = cuda_pool.work_key(broken.candidates[0].artifact)
    path = home / "store" / key
    path.chmod(0o600)
    path.write_bytes(b"x" * broken.candidates[0].artifact.size)
    worker_context().cache.path(broken.candidates[0].artifact).unlink()
    assert parity_cuda(batch, return_state=True).message == "1 reproduce, 0 refused, 1 not run"
    (reason,) = reasons(answer_of(batch)[broken.asked.release])
    assert "sha256 differs" in reason


def test_a_worker_that_can_not_lock_its_jobs_down_as_required_says_so_and_runs_nothing(
    home, staged, on_the_cpu, configured
):
    model = held(planned(staged("linear")))
    configured(require='["no exec"]', cuda_omit='["no exec"]')
    batch = cuda_pool._put([model])
    assert parity_cuda(batch, return_state=True).message == "0 reproduce, 0 refused, 1 not run"
    (reason,) = reasons(answer_of(batch)[model.release])
    assert "this host can not lock a job down as required" in reason
    assert str(home) not in reason
