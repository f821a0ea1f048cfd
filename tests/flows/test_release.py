"""The line as a whole, on a real Prefect server: what is released, and above all what is not."""

from __future__ import annotations

import inspect
import json
import shutil
import threading
import tomllib
from datetime import UTC, datetime
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from packhouse_test_architectures import Branch, FrozenBranch

from flows.release import released as release
from flows.run_result import End, Status, exit_status
from infra.settings import Settings, settings
from infra.worker.context import WorkerContext, use, worker_context
from infra.worker.rerun import again
from packhouse.errors import StageCrashed, Unavailable
from packhouse.formats.table import row
from packhouse.release.lookup import find, read_manifest, releases
from packhouse.release.manifest import REPORT_HTML, REPORT_JSON, load
from packhouse.report.html import html
from packhouse.report.model import Report
from packhouse.spec.model import Format, parse
from packhouse.store import open_store
from packhouse.training.source import stage_folder
from packhouse.trust.verify import verify
from packhouse.weights.safetensors_torch import read_torch
from tasks.commit import approve
from tasks.jobs.latency import Limits, thread_counts, usable_processors
from tests.flows.test_bad_input import packhouse
from tests.support.released import Copy
from tests.support.rows import plant

pytestmark = [pytest.mark.flow, pytest.mark.usefixtures("api")]

MEET_S = 300.0
TORCHSCRIPT_ONLY = {"onnx": "off", "program": "off", "onnx-int8": "off", "torchscript-int8": "off"}
FP32 = {"onnx-int8": "off", "torchscript-int8": "off"}

PLANTED = [
    ("linear", {}, Format.ONNX, "permuted_weight", "times the rounding of fp32"),
    ("linear", {}, Format.ONNX, "one_weight_slightly_off", "times the rounding of fp32"),
    ("linear", {}, Format.ONNX, "broadcastable_shape", "has shape (1, 1, 4), the model gives (1, 4)"),
    ("linear", {}, Format.ONNX, "not_a_number", "values that are NaN or infinite"),
    ("linear", {}, Format.ONNX, "another_dtype", "is float64, the model gives float32"),
    ("linear", {}, Format.ONNX, "batch_is_fixed", "case 'batch 1': fails"),
    ("linear", {}, Format.ONNX, "no_file", "left no file behind"),
    ("linear", {}, Format.ONNX, "killed", "SIGSEGV"),
    ("two-outputs", {"outputs": ["one", "two"]}, Format.ONNX, "outputs_swapped", "times the rounding of fp32"),
    ("two-outputs", {"outputs": ["one", "two"]}, Format.ONNX, "outputs_in_another_order", "outputs are 'two', 'one'"),
    ("branch", {"formats": TORCHSCRIPT_ONLY}, Format.TORCHSCRIPT, "traced", "times the rounding of fp32"),
]


@pytest.mark.parametrize(
    "architecture, options, format, fault, reason", PLANTED, ids=[f"{row[3]}-{row[0]}" for row in PLANTED]
)
def test_a_model_whose_export_is_wrong_is_not_released(
    home, staged, monkeypatch, architecture, options, format, fault, reason
):
    plant(monkeypatch, format, fault)
    ends = release([staged(architecture, **options)])
    assert_refused(ends, home, f"{format}: ", reason)


def branch_of(architecture: type[torch.nn.Module]) -> str:
    """File and line of the `if` in its forward."""
    lines, first = inspect.getsourcelines(architecture.forward)
    (place,) = [number for number, line in enumerate(lines, first) if " if " in line]
    return f"packhouse_test_architectures.py:{place}"


def test_a_branch_that_a_trace_freezes_is_refused(home, staged):
    ends = release([staged("frozen-branch", formats=TORCHSCRIPT_ONLY)])
    line = f"the model branches on data at {branch_of(FrozenBranch)}"
    assert_refused(ends, home, "torchscript: ", "times the rounding of fp32")
    assert ends[0].reason.endswith(f"; {line} (PH-0626)")


@pytest.mark.parametrize("labels", [False, True], ids=["no labels", "labels"])
def test_a_branch_that_only_late_samples_take_is_refused_where_a_trace_froze_it(home, staged, labels):
    x = np.random.default_rng(0).normal(size=(400, 16)).astype(np.float32).clip(-4, 4)
    x[200:, 0] = 7.0
    options = {"labels": np.arange(400) % 4} if labels else {}
    source = staged("late-branch", inputs={"x": x}, ranges={"batch": (1, 64)}, formats=TORCHSCRIPT_ONLY, **options)
    assert_refused(
        release([source]), home, "torchscript: case 'evaluation samples 128 to 191'", "times the rounding of"
    )


def test_a_branch_that_script_keeps_is_released_in_every_format_that_can_have_it(home, staged):
    (end,) = release([staged("branch", every_format=True)])
    assert end.status is Status.RELEASED, end.reason
    manifest = manifest_of(home, "branch")
    assert {made.format for made in manifest.formats} >= {Format.ONNX, Format.TORCHSCRIPT}
    assert {made.onnx.onnxruntime if made.onnx else None for made in manifest.formats} == {"1.17", None}
    left_out = {verdict.subject: verdict.reason for verdict in manifest.verdicts if verdict.reason}
    assert "data-dependent" in left_out["program"]
    (folder,) = (home / "store" / "branch" / "releases").iterdir()
    named = f"warning: the model branches on data at {branch_of(Branch)} (two probes take different sides)"
    assert f"## Preflight\n\n- {named}. " in (folder / "report.md").read_text()


@pytest.mark.parametrize(
    "architecture, options, reason",
    [
        ("random", {}, "not deterministic: the same input gave two answers; the model draws random numbers (rand) at "),
        ("not-a-number", {}, "the trained model answers 'batch 1' with NaN or infinity"),
    ],
)
def test_a_model_that_can_not_be_compared_is_refused_with_the_reason(home, staged, architecture, options, reason):
    assert_refused(release([staged(architecture, **options)]), home, "", reason)


FAULTY = {"onnx": "required", "torchscript": "optional", "program": "off", **FP32}


def test_a_crash_in_an_exporter_is_a_verdict_that_names_no_path_of_this_machine_and_the_line_goes_on(home, staged):
    ends = release([staged("crash", formats=FAULTY), staged("linear")])
    assert [end.status for end in ends] == [Status.RELEASED, Status.RELEASED], [end.reason for end in ends]
    assert "SIGSEGV" in reasons_of(home, "crash")["torchscript"]
    text = manifest_of(home, "crash").model_dump_json()
    assert "SIGSEGV" in text
    assert str(home) not in text
    assert "job.log" not in text


def test_a_hanging_exporter_is_ended_at_its_time_limit(home, staged, monkeypatch, sandbox):
    brief = WorkerContext(settings().model_copy(update={"child_seconds": 2.0}), sandbox)
    child = WorkerContext._child

    def hurried(self, job, arguments, folder):
        """Only the job that hangs has the short limit: the others may need longer on a busy machine."""
        return child(brief if job == row(Format.TORCHSCRIPT).job else self, job, arguments, folder)

    monkeypatch.setattr(WorkerContext, "_child", hurried)
    (end,) = release([staged("hang", formats=FAULTY)])
    assert end.status is Status.RELEASED, end.reason
    assert "took longer than its time limit; want 2 s" in reasons_of(home, "hang")["torchscript"]


def test_the_exports_of_one_model_run_at_the_same_time(home, staged, monkeypatch):
    monkeypatch.setenv("PACKHOUSE_CHILDREN", "3")
    settings.cache_clear()
    use(WorkerContext(settings(), worker_context().sandbox))
    exports = {row(Format.ONNX).job, row(Format.TORCHSCRIPT).job}
    both = threading.Barrier(len(exports))
    child = WorkerContext._child

    def meet(self, job, arguments, folder):
        """One export does not begin before the other has: in turn, neither would ever."""
        if job in exports:
            both.wait(MEET_S)
        return child(self, job, arguments, folder)

    monkeypatch.setattr(WorkerContext, "_child", meet)
    (end,) = release([staged("linear", formats={"program": "off", **FP32})])
    assert end.status is Status.RELEASED, end.reason


def test_a_failed_step_can_be_run_again_on_the_same_bytes(home, staged, monkeypatch):
    plant(monkeypatch, Format.ONNX, "killed")
    release([staged("linear")])
    (failure,) = (home / "cache" / "failures").iterdir()
    with pytest.raises(StageCrashed, match="SIGSEGV"):
        again(failure)


def test_one_bad_model_does_not_stop_the_others(home, staged):
    ends = release([staged("random"), staged("linear")])
    assert [end.status for end in ends] == [Status.REFUSED, Status.RELEASED]
    assert exit_status(ends) == 1


@pytest.mark.parametrize(
    "architecture, options",
    [
        ("linear", {"labels": np.arange(24) % 4, "name": "labelled"}),
        ("two-outputs", {"outputs": ["one", "two"]}),
        ("dict-output", {"outputs": ["one", "two"]}),
        ("tied", {}),
        ("unbatched", {"outputs": ["y", "sign"], "axes": {"x": [16]}}),
    ],
)
def test_a_healthy_model_is_released_and_verifies(home, staged, architecture, options):
    """Of a plain linear model, `whole` is such a release."""
    ends = release([staged(architecture, every_format=True, **options)])
    assert ends[0].status is Status.RELEASED, ends[0].reason
    proven = verify(find(open_store(str(home / "store")), f"{ends[0].model}@latest"))
    assert {Format.ONNX, Format.TORCHSCRIPT, Format.PROGRAM} <= set(proven.formats)


def test_weights_saved_by_torch_save_make_the_same_canonical_weights(home, staged, tmp_path):
    """A `.pt` with a state dict is taken too; what is released is safetensors that we wrote."""
    source = Path(staged("linear").removeprefix("file://"))
    torch.save(read_torch(source / "weights.safetensors"), tmp_path / "weights.pt")
    shutil.copy(source / "samples.safetensors", tmp_path)
    document = tomllib.loads((source / "package.toml").read_text())
    document["weights"] = {"file": "weights.pt"}
    again = stage_folder(tmp_path, document, to=str(tmp_path / "again"))
    ends = release([str(source), again.url])
    assert [end.status for end in ends] == [Status.RELEASED, Status.RELEASED], ends
    store = open_store(str(home / "store"))
    manifests = [read_manifest(found, found.record) for found in (find(store, f"linear/{end.release}") for end in ends)]
    assert len({manifest.artifact("weights.safetensors").digest for manifest in manifests}) == 1
    assert len({manifest.artifact("model.onnx").digest for manifest in manifests}) == 1


def test_the_same_model_again_is_unchanged_and_writes_nothing(home, staged):
    source = staged("linear")
    release([source])
    before = snapshot(home / "store")
    ends = release([source])
    assert [end.status for end in ends] == [Status.UNCHANGED]
    assert exit_status(ends) == 3
    assert snapshot(home / "store") == before


def test_int8_that_does_not_pay_is_left_out_with_the_reason(home, staged):
    (end,) = release([staged("linear", gates={"int8_worth": 100}, formats={"program": "off"})])
    assert end.status is Status.RELEASED
    reasons = {verdict.subject: verdict.reason for verdict in manifest_of(home, "linear").verdicts}
    words = ("is slower than torchscript", "is neither 10000 % smaller than torchscript nor")
    assert reasons["torchscript-int8"].startswith(words)
    assert not [made for made in manifest_of(home, "linear").formats if made.format.int8]


def test_int8_that_is_required_and_does_not_pay_refuses_the_model(home, staged):
    formats = TORCHSCRIPT_ONLY | {"torchscript-int8": "required"}
    ends = release([staged("linear", gates={"int8_worth": 100}, formats=formats)])
    assert_refused(ends, home, "torchscript-int8", "")


@pytest.fixture(scope="module")
def whole(released_models) -> Copy:
    """A linear model in every format, with INT8 whatever its speed, timed as long as a worker does. Only read."""
    worker = {"latency_s": str(Settings.model_fields["latency_s"].default)}
    return released_models.original(every_format=True, gates={"int8_worth": 0}, worker=worker)


def test_nothing_that_was_timed_stands_in_what_is_digested(whole):
    text = json.dumps(manifest_of(whole.home, "linear").model_dump(mode="json"))
    assert "_ms" not in text
    assert "seconds" not in text
    assert f"{datetime.now(UTC).year}-" not in text


def test_a_plain_model_is_released_in_every_format_and_verifies(whole):
    proven = verify(find(open_store(str(whole.store)), "linear@latest"))
    assert proven.release == whole.release
    assert {Format.ONNX, Format.TORCHSCRIPT, Format.PROGRAM} <= set(proven.formats)


def test_a_child_that_the_system_killed_makes_its_model_unavailable_and_the_next_one_is_released(
    home, staged, monkeypatch
):
    """The kernel does so where memory is short. Only the first model's exporter meets it here."""
    unlucky = staged("linear", name="unlucky", arguments={"hidden": 24})
    weights = parse((Path(unlucky.removeprefix("file://")) / "package.toml").read_bytes()).weights.digest
    child = WorkerContext._child

    def short_of_memory(self, job, arguments, folder):
        if job == row(Format.ONNX).job and arguments["weights"].digest == weights:
            raise Unavailable("was killed from outside", where=job)
        return child(self, job, arguments, folder)

    monkeypatch.setattr(WorkerContext, "_child", short_of_memory)
    ends = release([unlucky, staged("linear")])
    assert [end.status for end in ends] == [Status.UNAVAILABLE, Status.RELEASED], ends
    assert "was killed from outside" in ends[0].reason
    assert exit_status(ends) == 2


def test_a_model_of_which_no_format_is_left_is_refused(home, staged, monkeypatch):
    for format in (Format.ONNX, Format.TORCHSCRIPT, Format.PROGRAM):
        plant(monkeypatch, format, "no_file")
    formats = {"onnx": "optional", "torchscript": "optional", "program": "optional"}
    assert_refused(release([staged("linear", formats=formats)]), home, "", "no format is left")


def test_the_report_of_a_release_has_every_format_at_every_batch_size_and_thread_count(whole):
    """In report.json, as a table and in the pictures of report.html, and in what the command shows."""
    home, folder = whole.home, whole.store / "linear" / "releases" / whole.release
    report = load(Report, (folder / REPORT_JSON).read_bytes(), where=REPORT_JSON)
    formats = {row.format for row in report.rows if row.calls}
    assert formats >= {made.format for made in manifest_of(home, "linear").formats}
    processors = thread_counts(usable_processors(), Limits().threads)
    places = [(timing.format, timing.batch, timing.threads) for timing in report.latency]
    assert sorted(places) == sorted(product(formats, Limits().batches, processors))
    assert report.untimed == ()
    assert report.processor
    page = (folder / REPORT_HTML).read_text()
    assert page == html(report)
    assert page.count("<circle") == len(places)
    shown = packhouse("show", "linear@latest", "--latency", home=home)
    lines = [line.split() for line in shown.stdout.splitlines()]
    told = [(line[0], line[1], line[2]) for line in lines if line and line[0] in set(Format)]
    assert told == [(format.value, str(batch), str(threads)) for format, batch, threads in places]


def test_a_channel_that_was_rolled_back_stays_where_it_is(home, staged):
    """Two runs of one model, in one command and night after night: the newer one's channel does not swing back."""
    first, second = staged("linear"), staged("linear", arguments={"hidden": 24}, to=str(home / "second"))
    one, two = release([first]) + release([second])
    assert (one.serial, two.serial) == (1, 2)
    again = release([first, second])
    assert [end.status for end in again] == [Status.UNCHANGED, Status.UNCHANGED]
    assert {end.serial for end in again} == {2}
    assert [end.points_at for end in again] == [two.release, ""]
    assert again[0].line() == f"unchanged linear/{one.release} (latest stays at {two.release}#2)"
    assert find(open_store(str(home / "store")), "linear@latest").record.release == two.release


def test_the_channel_points_at_the_source_that_was_staged_last_whichever_release_ends_last(home, staged):
    older, newer = staged("linear"), staged("linear", arguments={"hidden": 24}, to=str(home / "newer"))
    (new,) = release([newer])
    (old,) = release([older])
    assert (old.status, old.serial) == (Status.RELEASED, new.serial)
    assert find(open_store(str(home / "store")), "linear@latest").record.release == new.release


def test_an_approval_that_comes_late_does_not_move_production_back_to_an_older_source(home, staged):
    older, newer = staged("linear"), staged("linear", arguments={"hidden": 24}, to=str(home / "newer"))
    old, new = release([older]) + release([newer])
    approve("linear", new.release, "production", newer)
    late = approve("linear", old.release, "production", older)
    assert late.points_at == new.release
    assert find(open_store(str(home / "store")), "linear@production").record.release == new.release


def assert_refused(ends: list[End], home: Path, where: str, reason: str) -> None:
    (end,) = ends
    assert end.status is Status.REFUSED, end
    assert where in end.reason
    assert reason in end.reason
    assert "\n" not in end.reason
    assert exit_status(ends) == 1
    store = open_store(str(home / "store"))
    assert list(releases(store)) == []
    assert not [stat.key for stat in store.list() if stat.key.endswith("record.json") or "/channels/" in stat.key]


def reasons_of(home: Path, model: str) -> dict[str, str]:
    return {verdict.subject: verdict.reason for verdict in manifest_of(home, model).verdicts}


def manifest_of(home: Path, model: str):
    found = find(open_store(str(home / "store")), f"{model}@latest")
    return read_manifest(found, found.record)


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    return {
        str(path): (path.stat().st_mtime_ns, path.stat().st_size)
        for path in folder.rglob("*")
        if path.is_file() and ".locks" not in path.parts
    }
