"""The evaluation samples: every one of them counts for every format, whatever the probes have seen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from packhouse.errors import ParityRefused
from packhouse.parity.golden_file import golden, read_cases
from packhouse.spec.model import SPEC_FILE, Format, parse
from tasks.jobs import export_onnx, export_torchscript, judge, reference
from tasks.jobs.evaluation import batches

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # torch's own, on tracing

EVALUATED = 375
"""Of 500 samples that are staged."""


def samples(rows: int = 500, *, late: bool = True) -> np.ndarray:
    """(rows, 16). late: evaluation samples from the 300th on have a feature of 7, and so no probe of 64 rows has."""
    x = np.random.default_rng(0).normal(size=(rows, 16)).astype(np.float32).clip(-4, 4)
    if late:
        x[400:, 0] = 7.0
    return x


class Job:
    """The jobs as plain functions, on one staged source."""

    def __init__(self, source: str, work: Path) -> None:
        folder = Path(source.removeprefix("file://"))
        self.spec = parse((folder / SPEC_FILE).read_bytes())
        self.given = {"spec": str(folder / SPEC_FILE), "samples": str(folder / self.spec.samples.file)}
        self.weights = str(folder / self.spec.weights.file)
        self.asked = {"cases": str(work / "cases"), "evaluation": str(work / "evaluation")}
        self.work = work

    def refer(self) -> list[str]:
        return list(reference.run(**self.given, weights=self.weights, **self.asked)["notes"])

    def export(self, job: Any, format: Format) -> None:
        job.run(**self.given, weights=self.weights, out=str(self.work / format.file))

    def judge(self, format: Format) -> dict[str, Any]:
        return judge.run(**self.given, **self.asked, format=format.value, model=str(self.work / format.file))


LABELS = [None, np.arange(500) % 4]


@pytest.mark.parametrize("labels", LABELS, ids=["no labels", "labels"])
def test_a_branch_that_only_late_samples_take_is_refused_where_trace_froze_it(staged, tmp_path, labels):
    options = {} if labels is None else {"labels": labels}
    ranges = {"batch": (1, 64)}
    job = Job(staged("late-branch", inputs={"x": samples()}, ranges=ranges, **options), tmp_path)
    assert job.refer() == []
    job.export(export_torchscript, Format.TORCHSCRIPT)
    found = job.judge(Format.TORCHSCRIPT)
    assert found["refusal"].startswith("case 'evaluation samples 256 to 319': output 'y' is off by ")
    assert "times the rounding of fp32" in found["refusal"]


def test_samples_beyond_the_float64_run_are_held_to_the_fp32_answers(staged, tmp_path, monkeypatch):
    monkeypatch.setattr(reference, "FLOAT64_WORK", 1)
    x, ranges = samples(), {"batch": (1, 64)}
    late = Job(staged("late-branch", inputs={"x": x}, ranges=ranges), tmp_path)
    assert late.refer() == ["evaluation: float64 reference of 64 samples, the others are held to the fp32 answers"]
    late.export(export_torchscript, Format.TORCHSCRIPT)
    assert "case 'evaluation samples 256 to 319': output 'y' is off by" in late.judge(Format.TORCHSCRIPT)["refusal"]
    healthy = Job(staged("linear", inputs={"x": x}, ranges=ranges), tmp_path)
    healthy.refer()
    assert [case.exact is None for case in read_cases(tmp_path / "evaluation")] == [
        False,
        False,
        True,
        True,
        True,
        True,
    ]
    healthy.export(export_onnx, Format.ONNX)
    assert healthy.judge(Format.ONNX)["refusal"] == ""


def test_answers_that_would_not_fit_are_left_out_and_the_report_says_so(staged, tmp_path, monkeypatch):
    monkeypatch.setattr(reference, "MAX_ANSWER_BYTES", 1500)
    job = Job(staged("linear", inputs={"x": samples()}, labels=LABELS[1], ranges={"batch": (1, 64)}), tmp_path)
    assert job.refer() == [f"evaluation: the first 128 of {EVALUATED} samples"]
    job.export(export_onnx, Format.ONNX)
    found = job.judge(Format.ONNX)
    assert found["refusal"] == ""
    assert found["quality"]["accuracy"] == found["quality"]["base_accuracy"]


@pytest.mark.parametrize(
    "architecture, options",
    [
        ("linear", {"labels": np.arange(20) % 4}),
        ("linear", {"ranges": {"batch": (6, 8)}, "labels": np.arange(20) % 4}),
        ("total", {"outputs": ["y", "sum"]}),
        ("unbatched", {"outputs": ["y", "sign"], "axes": {"x": [16]}}),
    ],
    ids=["batch", "a smallest batch", "one number for a batch", "no batch"],
)
def test_a_healthy_format_passes_on_every_sample_and_each_sample_counts_once(staged, tmp_path, architecture, options):
    x = samples(20, late=False) + np.float32(1)  # else the sum over a batch nearly cancels out, and rounding decides
    job = Job(staged(architecture, inputs={"x": x}, **options), tmp_path)
    job.refer()
    job.export(export_onnx, Format.ONNX)
    found = job.judge(Format.ONNX)
    assert found["refusal"] == ""
    if "labels" in options:
        assert found["quality"]["accuracy"] in {n / 15 for n in range(16)}
    asked = list(batches(job.spec, judge.read_samples(Path(job.given["samples"]))))
    assert sum(batch.kept for batch in asked) == 15
    assert [case.name for case in read_cases(tmp_path / "evaluation")] == [batch.name for batch in asked]


def test_a_model_that_answers_a_late_sample_with_nan_is_refused(staged, tmp_path):
    job = Job(staged("late-not-a-number", inputs={"x": samples()}, ranges={"batch": (1, 64)}), tmp_path)
    with pytest.raises(ParityRefused, match="answers 'evaluation samples 256 to 319' with NaN or infinity"):
        job.refer()


def test_where_the_model_floors_a_value_on_an_edge_a_permuted_weight_is_refused_and_the_report_says_why(
    staged, tmp_path
):
    x = samples(24, late=False)
    x[:, 0] = np.float32(10 / 3) * (1 + np.arange(24) % 3)
    job = Job(staged("stairs", inputs={"x": x}), tmp_path)
    (note,) = job.refer()
    assert note.startswith("output 'y': fp32 and float64 differ by more than rounding in ")
    assert note.endswith("held to the fp32 answer there")
    job.export(export_onnx, Format.ONNX)
    assert job.judge(Format.ONNX)["refusal"] == ""
    spoil(tmp_path / "model.onnx")
    assert "from the fp32 answer, since float64 goes another way" in job.judge(Format.ONNX)["refusal"]


def spoil(path: Path) -> None:
    """Two columns of the last layer change places."""
    import onnx
    from onnx import numpy_helper

    model = onnx.load(path)
    (weight,) = (entry for entry in model.graph.initializer if list(entry.dims) == [4, 4])
    array = numpy_helper.to_array(weight)
    turned = array[:, [0, 2, 1, 3]] if model.graph.node[-1].op_type == "Gemm" else array[[0, 2, 1, 3]]
    weight.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(turned), weight.name))
    onnx.save(model, path)


def test_what_verify_will_ask_is_asked_first_and_by_a_fresh_runtime(staged, tmp_path, monkeypatch):
    """TorchScript runs other kernels once it has seen the shapes, so that the order is part of the question."""
    job = Job(staged("linear"), tmp_path)
    job.refer()
    job.export(export_onnx, Format.ONNX)
    asked: list[str] = []
    probes = {array.tobytes(): case.name for case in read_cases(tmp_path / "cases") for array in case.inputs.values()}
    opened = judge.open_format

    def listening(*arguments: Any, **options: Any) -> Any:
        runner = opened(*arguments, **options)
        return lambda inputs: (asked.append(probes.get(inputs["x"].tobytes(), "")), runner(inputs))[1]

    monkeypatch.setattr(judge, "open_format", listening)
    monkeypatch.setattr(judge, "golden", lambda cases: golden(cases, limit=2000))
    assert job.judge(Format.ONNX)["refusal"] == ""
    kept = [case.name for case in golden(read_cases(tmp_path / "cases"), limit=2000)]
    assert 0 < len(kept) < len(probes)
    assert asked[: len(kept)] == kept
