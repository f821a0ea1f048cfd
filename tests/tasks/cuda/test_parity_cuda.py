"""Parity on CUDA, but for the GPU: the rendezvous, the job on the CPU, what is decided, and who insists."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import pytest

from infra.worker.context import worker_context
from packhouse.artifact import Artifact, Outcome, Verdict
from packhouse.digest import digest_bytes
from packhouse.errors import GpuUnavailable, ParityRefused, ReleaseInvalid
from packhouse.parity.latency import Timing
from packhouse.release.manifest import DECISIONS, Decisions, dump, load, release_key
from packhouse.spec.model import Format
from tasks._support.states import Candidate, Judged, Measured, Referenced, Validated
from tasks.cuda import cuda_batch
from tasks.cuda import parity_cuda as stage
from tasks.cuda.cuda_batch import REPRODUCES, RUNS, Batch, Cuda, CudaCandidate, use_batch
from tasks.cuda.cuda_pool import Reference, _checked
from tasks.cuda.parity_cuda import insist_cuda, parity_cuda
from tasks.export import make
from tasks.fetch import fetch
from tasks.measure import pays
from tasks.plan import plan
from tasks.reference_outputs import reference_outputs
from tasks.validate_weights import validate_weights
from tests.servers import place
from tests.support.rows import plant

LONG_S = 60.0


def artifact(name: str, text: str) -> Artifact:
    return Artifact(name=name, digest=digest_bytes(text.encode()), size=len(text), media_type="text/plain")


def candidate(number: int) -> CudaCandidate:
    return CudaCandidate(
        model=f"model-{number}",
        release=f"{number:032x}",
        spec_file=artifact("package.toml", f"spec {number}"),
        weights=artifact("weights.safetensors", f"weights {number}"),
        cases=artifact("cases.safetensors", f"cases {number}"),
        candidates=((Format.ONNX, artifact("model.onnx", f"onnx {number}")),),
    )


def passed(asked: CudaCandidate, note: str = "") -> Cuda:
    verdicts = [asked.verdict(check, s, Outcome.PASS) for s in asked.subjects for check in (RUNS, REPRODUCES)]
    return Cuda(verdicts=tuple(verdicts), notes=(note,) if note else ())


class Members:
    """Threads that are members of one batch; what each got, or raised. `sent`: the releases of every send."""

    def __init__(self, size: int, send: Callable[[list[CudaCandidate]], dict[str, Cuda]] | None = None) -> None:
        self.sent: list[list[str]] = []
        self.got: dict[int, Cuda | BaseException] = {}
        self._send = send or (lambda asked: {each.release: passed(each) for each in asked})
        self.batch = Batch(size, self._record)
        self._threads: list[threading.Thread] = []

    def _record(self, asked: list[CudaCandidate]) -> dict[str, Cuda]:
        self.sent.append(sorted(each.release for each in asked))
        return self._send(asked)

    def start(self, number: int, work: Callable[[Batch], Cuda]) -> None:
        def run() -> None:
            try:
                with self.batch.member():
                    self.got[number] = work(self.batch)
            except BaseException as error:
                self.got[number] = error

        self._threads.append(threading.Thread(target=run, daemon=True))
        self._threads[-1].start()

    def asks(self, number: int, first: Callable[[], object] = lambda: None) -> None:
        def work(batch: Batch) -> Cuda:
            first()
            return batch.ask(candidate(number))

        self.start(number, work)

    def end(self) -> dict[int, Cuda | BaseException]:
        for thread in self._threads:
            thread.join(LONG_S)
        assert not [thread for thread in self._threads if thread.is_alive()], "a member waits for ever"
        return self.got


until = partial(place.until, seconds=LONG_S, every_s=0.01)


def test_the_models_of_a_run_go_to_the_gpu_in_one_batch_and_each_gets_its_own_verdicts():
    members = Members(4)
    for number in range(4):
        members.asks(number)
    got = members.end()
    assert members.sent == [[candidate(number).release for number in range(4)]]
    assert got == {number: passed(candidate(number)) for number in range(4)}


def test_nothing_is_sent_while_a_member_may_still_ask():
    members, inside, go = Members(2), threading.Event(), threading.Event()
    members.asks(1, lambda: (inside.set(), go.wait()))
    inside.wait()
    members.asks(0)
    until(lambda: bool(members.batch._waiting or members.sent))
    with members.batch._changed:
        assert not [seat for seat in members.batch._waiting if members.batch._taken(seat)]
    assert not members.sent
    go.set()
    members.end()
    assert len(members.sent) == 1


def raises(error: BaseException) -> Callable[[Batch], Cuda]:
    def work(batch: Batch) -> Cuda:
        raise error

    return work


@pytest.mark.parametrize("end", [lambda batch: Cuda(), raises(ParityRefused("no")), raises(KeyboardInterrupt())])
def test_a_member_that_leaves_without_asking_holds_nobody_up(end):
    members, go = Members(3), threading.Event()

    def late(batch: Batch) -> Cuda:
        go.wait()
        return end(batch)

    members.asks(0)
    members.asks(1)
    members.start(2, late)
    until(lambda: len(members.batch._waiting) == 2)
    go.set()
    assert members.end()[0] == passed(candidate(0))
    assert members.sent == [[candidate(0).release, candidate(1).release]]


def test_where_all_leave_nothing_is_sent():
    members = Members(3)
    for number in range(3):
        members.start(number, lambda batch: Cuda())
    members.end()
    assert not members.sent


def test_a_member_that_never_comes_is_not_waited_for_for_ever(monkeypatch):
    monkeypatch.setattr(cuda_batch, "COME_S", 0.1)
    members = Members(3)
    members.asks(0)
    members.asks(1)
    assert members.end()[1] == passed(candidate(1))


def test_a_member_that_comes_late_is_sent_too(monkeypatch):
    monkeypatch.setattr(cuda_batch, "COME_S", 0.1)
    members = Members(2)
    members.asks(0)
    until(lambda: 0 in members.got)
    members.asks(1)
    members.end()
    assert members.sent == [[candidate(0).release], [candidate(1).release]]


def test_an_error_of_sending_reaches_every_member_as_not_run_with_its_reason():
    def send(asked: list[CudaCandidate]) -> dict[str, Cuda]:
        raise ConnectionError("the\nserver is away")

    members = Members(3, send)
    for number in range(3):
        members.asks(number)
    for number, got in members.end().items():
        assert got == candidate(number).not_run("could not be asked: ConnectionError: the server is away")


def test_a_model_that_the_answer_lacks_is_not_run():
    members = Members(2, lambda asked: {candidate(0).release: passed(candidate(0))})
    members.asks(0)
    members.asks(1)
    got = members.end()
    assert got[0] == passed(candidate(0))
    assert {verdict.outcome for verdict in got[1].verdicts} == {Outcome.NOT_RUN}


def test_a_sender_that_is_cancelled_leaves_nobody_waiting():
    def send(asked: list[CudaCandidate]) -> dict[str, Cuda]:
        raise KeyboardInterrupt

    members = Members(3, send)
    for number in range(3):
        members.asks(number)
    got = members.end()
    assert [type(found) for found in got.values()].count(KeyboardInterrupt) == 1
    others = [found for found in got.values() if isinstance(found, Cuda)]
    assert [found.verdicts[0].reason for found in others] == ["the run that asked the GPU worker was ended"] * 2


def test_a_member_that_is_cancelled_while_it_waits_ends_at_once_and_is_not_sent():
    import ctypes

    members, go = Members(2), threading.Event()
    members.asks(0)
    members.asks(1, go.wait)
    until(lambda: bool(members.batch._waiting))
    thread = members._threads[0]
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(KeyboardInterrupt))
    thread.join(LONG_S)
    assert isinstance(members.got[0], KeyboardInterrupt)
    go.set()
    members.end()
    assert members.sent == [[candidate(1).release]]


def test_a_task_that_is_tried_again_gets_the_same_answer_and_sends_nothing():
    members = Members(1)

    def twice(batch: Batch) -> Cuda:
        first = batch.ask(candidate(0))
        assert batch.ask(candidate(0)) == first
        return first

    members.start(0, twice)
    assert members.end()[0] == passed(candidate(0))
    assert len(members.sent) == 1


def test_two_members_with_the_same_release_both_get_it_and_it_is_sent_once():
    members, go = Members(2), threading.Event()
    for name in (0, 1):
        members.start(name, lambda batch: (go.wait(), batch.ask(candidate(7)))[1])
    go.set()
    assert list(members.end().values()) == [passed(candidate(7))] * 2
    assert members.sent == [[candidate(7).release]]


def test_who_is_no_member_can_not_ask():
    with pytest.raises(RuntimeError, match="member"):
        Batch(1, dict).ask(candidate(0))


@dataclass
class Made:
    gated: Validated
    referenced: Referenced
    candidates: list[Candidate]

    @property
    def asked(self) -> CudaCandidate:
        return stage._candidate(self.gated, self.referenced, [])

    def job(self, *subjects: str, job: str = "tasks.jobs.parity_cuda:run") -> dict:
        files = {"torch": self.gated.weights, **{entry.format.value: entry.whole for entry in self.candidates}}
        answer, _ = worker_context().run(
            job,
            {
                "spec": self.gated.spec_file,
                "cases": self.referenced.cases,
                "formats": {name: files[name] for name in subjects or files},
                "device": "cpu",
            },
        )
        return answer.document


def made(source: str, **limit: int) -> Made:
    """limit: bytes that an ONNX file may have at `most`."""
    gated = validate_weights.fn(fetch.fn(plan.fn(source)))
    found = [make(gated, Format.TORCHSCRIPT, gated.trained), make(gated, Format.ONNX, gated.trained | limit)]
    return Made(gated, reference_outputs.fn(gated), [entry for entry in found if isinstance(entry, Candidate)])


def planned(source: str) -> Made:
    """As if it had been made: no file is there, and none is looked at."""
    files = {name: artifact(name, name) for name in ("spec_file", "weights", "samples")}
    gated = Validated(planned=plan.fn(source), **files, facts={}, lockdown=())
    cases = artifact("cases.safetensors", "cases")
    return Made(gated, Referenced(cases=cases, evaluation=cases, notes=()), [])


PASS = {"outcome": "pass", "reason": ""}


def test_a_healthy_model_runs_and_reproduces_in_every_format(home, staged):
    answer = made(staged("two-outputs", outputs=["one", "two"])).job()
    assert answer["found"] == {name: {"runs": PASS, "reproduces": PASS} for name in ("torch", "torchscript", "onnx")}
    assert not [note for note in answer["notes"] if "bit" in note]


def test_an_onnx_file_whose_weights_lie_beside_it_goes_over_and_runs_with_them(home, staged):
    model = made(staged("linear", arguments={"hidden": 2048}), most=20_000)
    (graph,) = (entry for entry in model.candidates if entry.format is Format.ONNX)
    passed = Verdict(check="parity-cpu", subject="onnx", outcome=Outcome.PASS, compared=(graph.artifact.digest,))
    judged = [Judged(candidate=graph, verdict=passed, measures={})]
    asked = stage._candidate(model.gated, model.referenced, judged)
    assert graph.data
    assert asked.data == graph.data
    assert graph.data in asked.files
    assert asked.opened("onnx") == graph.whole
    assert asked.opened("torch") == model.gated.weights
    assert model.job("onnx")["found"]["onnx"] == {"runs": PASS, "reproduces": PASS}


@pytest.mark.parametrize(
    "fault, reason",
    [
        ("permuted_weight", "times the rounding of fp32"),
        ("one_weight_slightly_off", "times the rounding of fp32"),
        ("broadcastable_shape", "has shape (1, 1, 4), the model gives (1, 4)"),
    ],
)
def test_a_format_that_computes_something_else_runs_and_does_not_reproduce(home, staged, monkeypatch, fault, reason):
    plant(monkeypatch, Format.ONNX, fault)
    found = made(staged("linear")).job()["found"]
    assert found["onnx"]["runs"] == PASS
    assert found["onnx"]["reproduces"]["outcome"] == "refused"
    assert reason in found["onnx"]["reproduces"]["reason"]
    assert found["torch"]["reproduces"] == found["torchscript"]["reproduces"] == PASS


def test_a_format_that_fails_on_a_probe_does_not_run_and_is_not_said_to_reproduce(home, staged, monkeypatch):
    plant(monkeypatch, Format.ONNX, "batch_is_fixed")
    found = made(staged("linear")).job()["found"]["onnx"]
    assert found["runs"]["outcome"] == "refused"
    assert "case 'batch 1'" in found["runs"]["reason"]
    assert found["reproduces"] == {"outcome": "not run", "reason": "it does not run"}


def test_what_was_pinned_is_read_back_and_recorded(home):
    answer, _ = worker_context().run("tasks.jobs.parity_cuda:look", {"device": "cpu"})
    notes = "\n".join(answer.document["notes"])
    assert answer.document["missing"] == ""
    assert "fp32 precision of matmul ieee, of cuDNN's convolutions ieee, of its recurrent layers ieee" in notes
    assert "NVIDIA_TF32_OVERRIDE=0" in notes
    assert "CUBLAS_WORKSPACE_CONFIG=:4096:8" in notes
    assert "deterministic True, benchmark False" in notes


def test_without_a_device_the_reason_is_said_and_nothing_runs_on_the_cpu_instead(home, staged):
    import onnxruntime
    import torch

    if torch.cuda.is_available() or "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("there is a CUDA device here")
    answer, _ = worker_context().run("tasks.jobs.parity_cuda:look", {})
    assert answer.document["missing"] in (
        "torch on this worker is built without CUDA",
        "no CUDA device on this worker",
    )
    model = made(staged("linear"))
    files = {"onnx": next(e.artifact for e in model.candidates if e.format is Format.ONNX)}
    arguments = {"spec": model.gated.spec_file, "cases": model.referenced.cases, "formats": files}
    answer, _ = worker_context().run("tasks.jobs.parity_cuda:run", arguments)
    reason = {"outcome": "not run", "reason": "onnxruntime on this worker has no CUDA provider"}
    assert answer.document["found"]["onnx"] == {"runs": reason, "reproduces": reason}


def test_answers_that_differ_from_run_to_run_are_noted_and_a_model_that_answers_wrongly_once_is_refused(home, staged):
    answer = made(staged("linear")).job("torch", job="tests.support.on_the_gpu:flaky")
    assert "torch: not repeatable to the bit" in answer["notes"]
    assert answer["found"]["torch"]["runs"] == PASS
    assert answer["found"]["torch"]["reproduces"]["outcome"] == "refused"


def test_a_gpu_that_is_too_small_says_nothing_of_the_model(home, staged):
    answer = made(staged("linear")).job("torch", job="tests.support.on_the_gpu:too_small")
    assert {check["outcome"] for check in answer["found"]["torch"].values()} == {"not run"}


def ask(model: Made, answer: Cuda) -> Cuda:
    batch = Batch(1, lambda asked: {each.release: answer for each in asked})
    with use_batch(batch), batch.member():
        return parity_cuda.fn(model.gated, model.referenced, [])


def decisions(model: Made) -> Decisions:
    key = release_key(model.gated.planned.model, model.gated.planned.release, DECISIONS)
    data, _ = worker_context().store.get(key, limit=1 << 20)
    return load(Decisions, data, where=key)


def test_the_first_verdicts_on_the_same_bytes_count_whether_a_gpu_is_there_later_or_not(home, staged):
    model = planned(staged("linear"))
    first = ask(model, model.asked.not_run("no worker"))
    again = ask(model, passed(model.asked))
    assert again.verdicts == first.verdicts == decisions(model).cuda
    assert again.notes == (stage.EARLIER,)


def test_what_was_decided_by_the_clock_and_by_the_gpu_do_not_wipe_each_other_out(home, staged):
    model = planned(staged("linear"))
    ask(model, passed(model.asked))
    slow = Timing(
        format=Format.ONNX_INT8, batch=1, threads=1, calls=1, p50_ms=1.0, items_per_s=1e3, busy=1.0, speed=0.1
    )
    measured = Measured(timings=(slow,), processor="")
    pays(model.gated, [], measured)
    assert decisions(model) == Decisions(
        slower={Format.ONNX_INT8: True}, faster={Format.ONNX_INT8: False}, cuda=passed(model.asked).verdicts
    )


def test_verdicts_on_other_bytes_do_not_count(home, staged):
    model = planned(staged("linear"))
    other = model.asked.model_copy(update={"cases": artifact("cases.safetensors", "others")})
    key = release_key(model.gated.planned.model, model.gated.planned.release, DECISIONS)
    assert worker_context().store.swap(key, dump(Decisions(cuda=passed(other).verdicts)), expected=None)
    assert ask(model, passed(model.asked)).verdicts == passed(model.asked).verdicts
    assert decisions(model).cuda == passed(model.asked).verdicts


def test_a_required_gpu_that_is_not_there_makes_the_model_unavailable_and_a_later_run_may_pass(home, staged):
    model = planned(staged("linear", gates={"cuda": "required"}))
    with pytest.raises(GpuUnavailable, match="no worker of the pool"):
        ask(model, model.asked.not_run("no worker of the pool"))
    assert ask(model, passed(model.asked)).verdicts == passed(model.asked).verdicts


def refused(asked: CudaCandidate, check: str) -> Cuda:
    verdicts = [
        v.model_copy(update={"outcome": Outcome.REFUSED, "reason": "is off"}) if v.check == check else v
        for v in passed(asked).verdicts
    ]
    return Cuda(verdicts=tuple(verdicts))


@pytest.mark.parametrize("check", [RUNS, REPRODUCES])
def test_a_refusal_refuses_the_model_only_where_the_gpu_is_required(home, staged, check):
    optional = planned(staged("linear", name="optional"))
    assert ask(optional, refused(optional.asked, check)).verdicts == refused(optional.asked, check).verdicts
    required = planned(staged("linear", name="required", gates={"cuda": "required"}))
    with pytest.raises(ParityRefused, match=f"required: torch: {check} refused: is off"):
        ask(required, refused(required.asked, check))


def test_a_required_gpu_that_said_nothing_is_no_pass(home, staged):
    with pytest.raises(GpuUnavailable):
        insist_cuda(planned(staged("linear", gates={"cuda": "required"})).gated.planned, ())


def test_where_the_gpu_is_off_nothing_is_asked_and_nothing_is_remembered(home, staged):
    model = planned(staged("linear", gates={"cuda": "off"}))
    assert ask(model, passed(model.asked)) == Cuda()
    assert worker_context().store.stat(release_key("linear", model.gated.planned.release, DECISIONS)) is None


def test_decisions_of_an_earlier_version_still_load():
    assert load(Decisions, b'{"slower":{"onnx-int8":true}}\n', where="x") == Decisions(slower={Format.ONNX_INT8: True})


def test_an_answer_that_is_not_on_these_very_bytes_counts_for_nothing():
    asked = candidate(1)
    for wrong in (None, Cuda(), passed(candidate(2)), Cuda(verdicts=passed(asked).verdicts[1:])):
        assert {v.outcome for v in _checked(asked, wrong).verdicts} == {Outcome.NOT_RUN}
    assert _checked(asked, passed(asked)) == passed(asked)


@pytest.mark.parametrize(
    "key",
    [
        "../secret",
        f"_work/parity/{'a' * 64}/../../x",
        "linear/releases/x/record.json",
        f"_work/parity/{'A' * 64}/request.json",
    ],
)
def test_a_batch_can_name_no_other_object_of_the_store(key):
    with pytest.raises(ValueError):
        Reference(key=key, digest=digest_bytes(b""), size=1)


def test_the_parameter_of_the_flow_run_is_a_reference_of_a_few_hundred_bytes():
    reference = Reference(key=f"_work/parity/{'a' * 64}/request.json", digest=digest_bytes(b""), size=1)
    assert len(reference.model_dump_json()) < 4096


def test_decisions_are_refused_where_they_are_none():
    with pytest.raises(ReleaseInvalid):
        load(Decisions, b'{"cuda":[{"check":"cuda-runs"}]}\n', where="x")
