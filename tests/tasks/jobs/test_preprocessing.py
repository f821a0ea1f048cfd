"""Preprocessing in the formats: raw features go in, text in ONNX too, and all answer as the trained model behind it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper

from packhouse.architectures import registry
from packhouse.errors import ExportFailed, SpecInvalid
from packhouse.parity.probes import read_samples
from packhouse.spec.model import Format, Want
from packhouse.spec.steps import Concatenate, MinMax, OneHot, Standard, Step, Vocabulary
from packhouse.training.preprocessing import apply, codes
from packhouse.weights.safetensors_torch import read_torch
from tasks.export import make
from tasks.jobs import (
    export_onnx,
    export_program,
    export_torchscript,
    quantise_onnx,
    quantise_torchscript,
)
from tasks.jobs.evaluation import batches
from tasks.jobs.int8.calibrate import Calibration
from tasks.jobs.int8.recipes import Ranges
from tasks.jobs.onnx.graph import read
from tasks.jobs.preprocessing import module
from tests.conftest import Stage
from tests.tasks.cuda.test_parity_cuda import PASS, made
from tests.tasks.jobs.test_evaluation import Job

pytestmark = pytest.mark.slow

DRAW = np.random.default_rng(0)
ROWS = 60
PLANS = ("month", "two years", "", "ärger \N{SNOWMAN}", 'quoted "text"')
NUMBERS = DRAW.normal([45, 30, 1e5], [14, 9, 2e4], (ROWS, 3)).astype(np.float32)
COUNTS = DRAW.exponential(2, (ROWS, 2)).astype(np.float32)
PLAN = DRAW.choice([*PLANS, "nobody knows"], (ROWS, 1))
ZONE = DRAW.integers(0, 9, (ROWS, 2))
STEPS: tuple[Step, ...] = (
    Standard(input="numbers", mean=(45, 30, 1e5), scale=(14, 9, 2e4)),
    MinMax(input="counts", data_min=(0, 0), data_max=(5, 7), feature_range=(-1, 1), clip=True),
    OneHot(input="plan", categories=PLANS, unknown="zeros"),
    OneHot(input="zone", categories=(2, 3, 7), unknown="zeros"),
    Concatenate(inputs=("numbers", "plan", "counts", "zone")),
)
TABLE = {"numbers": NUMBERS, "plan": PLAN, "counts": COUNTS, "zone": ZONE}
WORDS: tuple[Step, ...] = (
    Vocabulary(input="words", values=("the", "cat", "sat"), indices=(3, 4, 5), unknown=1),
    Standard(input="x", mean=(1, 2, 3), scale=(1, 2, 3)),
)
SENTENCES = DRAW.choice(["the", "cat", "sat", "quietly"], (ROWS, 5))
EXPORTS = {
    Format.ONNX: export_onnx,
    Format.TORCHSCRIPT: export_torchscript,
    Format.PROGRAM: export_program,
    Format.TORCHSCRIPT_INT8: quantise_torchscript,
}


@pytest.fixture
def table(staged: Stage) -> str:
    """The 16 features of a linear model from three numbers, two counts, one plan and two zones."""
    return staged("linear", inputs=TABLE, preprocessing=STEPS, every_format=True)


@pytest.fixture
def words(staged: Stage) -> str:
    axes = {"words": ("batch", "time")}
    inputs, off = {"words": SENTENCES, "x": NUMBERS}, {"onnx-int8": "off"}  # too small for INT8
    ranges = {"time": (1, 7), "batch": (1, 9)}
    return staged("words", inputs=inputs, preprocessing=WORDS, axes=axes, ranges=ranges, formats=off)


def released(source: str, work: Path) -> Job:
    """Every format, made and judged."""
    job = Job(source, work)
    assert job.refer() == []
    for format, export in EXPORTS.items():
        job.export(export, format)
    if job.spec.formats.want(Format.ONNX_INT8) is not Want.OFF:
        quantise_onnx.run(**job.given, model=str(work / "model.onnx"), out=str(work / "model.int8.onnx"))
    for format in job.spec.formats.wanted:
        assert job.judge(format)["refusal"] == "", format
    return job


def trained(job: Job, architecture: str) -> torch.nn.Module:
    model = registry.build(architecture, {}).eval()
    model.load_state_dict(read_torch(Path(job.weights)))
    return model


def plain(path: Path, feed: dict[str, np.ndarray]) -> np.ndarray:
    """As anybody would, with nothing of packhouse."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, feed)[0]


def test_a_table_of_numbers_and_text_goes_raw_into_every_format(table, tmp_path):
    job = released(table, tmp_path)
    raw = {"numbers": NUMBERS, "plan": codes(PLAN, PLANS), "counts": COUNTS, "zone": ZONE}
    (x,) = apply(STEPS, raw).values()
    want = trained(job, "test.linear")(torch.from_numpy(x)).detach().numpy()
    got = plain(tmp_path / "model.onnx", TABLE | {"plan": PLAN.astype(object)})
    np.testing.assert_allclose(got, want, atol=1e-5)
    np.testing.assert_allclose(
        plain(tmp_path / "model.int8.onnx", TABLE | {"plan": PLAN.astype(object)}), want, atol=0.1
    )
    script = torch.jit.load(tmp_path / "model.ts")(*map(torch.from_numpy, raw.values())).numpy()
    np.testing.assert_allclose(script, want, atol=1e-5)
    graph = onnx.load(tmp_path / "model.onnx")
    assert {entry.domain: entry.version for entry in graph.opset_import} == {"": 20, "ai.onnx.ml": 2}


def test_words_go_as_text_into_an_embedding_and_those_not_listed_as_the_unknown_one(words, tmp_path):
    job = released(words, tmp_path)
    found = np.select([word == SENTENCES for word in ("the", "cat", "sat")], [3, 4, 5], 1)
    x = (NUMBERS - np.array([1, 2, 3], np.float32)) / np.array([1, 2, 3], np.float32)
    want = trained(job, "test.words")(torch.from_numpy(found), torch.from_numpy(x)).detach().numpy()
    got = plain(tmp_path / "model.onnx", {"words": SENTENCES.astype(object), "x": NUMBERS})
    np.testing.assert_allclose(got, want, rtol=1e-4)


def encoders_swapped(model: onnx.ModelProto) -> None:
    (encoder,) = (node for node in model.graph.node if node.op_type == "LabelEncoder")
    keys = next(attribute.strings for attribute in encoder.attribute if attribute.name == "keys_strings")
    keys[0], keys[1] = keys[1], keys[0]


def unknown_is_the_first(model: onnx.ModelProto) -> None:
    (encoder,) = (node for node in model.graph.node if node.op_type == "LabelEncoder")
    next(attribute for attribute in encoder.attribute if attribute.name == "default_int64").i = 0


def a_category_is_another(model: onnx.ModelProto) -> None:
    (zones,) = (t for t in model.graph.initializer if numpy_helper.to_array(t).tolist() == [2, 3, 7])
    zones.CopyFrom(numpy_helper.from_array(np.array([2, 3, 8]), zones.name))


@pytest.mark.parametrize("fault", [encoders_swapped, unknown_is_the_first, a_category_is_another])
def test_a_file_that_takes_a_text_for_another_is_refused_though_no_sample_has_it(staged, tmp_path, fault):
    plans, zones = np.full((ROWS, 1), PLANS[3]), np.full((ROWS, 2), 3)
    job = Job(staged("linear", inputs=TABLE | {"plan": plans, "zone": zones}, preprocessing=STEPS), tmp_path)
    job.refer()
    job.export(export_onnx, Format.ONNX)
    model = onnx.load(tmp_path / "model.onnx")
    fault(model)
    onnx.save(model, tmp_path / "model.onnx")
    refusal = job.judge(Format.ONNX)["refusal"]
    assert refusal.startswith("case 'every code 0': output 'y' is off by "), refusal


def test_an_index_that_the_embedding_does_not_have_is_refused_though_no_sample_leads_there(staged, tmp_path):
    steps = (Vocabulary(input="words", values=("the", "cat", "sat"), unknown=99), WORDS[1])
    inputs = {"words": np.full((ROWS, 5), "cat"), "x": NUMBERS}
    axes = {"words": ("batch", "time")}
    job = Job(staged("words", inputs=inputs, preprocessing=steps, axes=axes, ranges={"time": (1, 7)}), tmp_path)
    with pytest.raises(SpecInvalid, match="the model fails on 'every code 0'"):
        job.refer()


def test_static_ranges_are_found_behind_text(table, tmp_path):
    """The matrix that the model takes has the one-hot columns' 0 and 1 in it."""
    job = Job(table, tmp_path)
    job.export(export_onnx, Format.ONNX)
    graph = read(tmp_path / "model.onnx")
    (joined,) = (node.output[0] for node in graph.nodes if node.op_type == "Concat")
    given = list(batches(job.spec, read_samples(Path(job.given["samples"])), split="calibration"))
    ((low, high),) = (
        Calibration(graph, given, tmp_path / "c.onnx", job.spec.text).ranges([joined], Ranges.MINMAX).values()
    )
    assert low < -1
    assert high > 1


def test_a_graph_whose_text_was_forgotten_is_no_export(table, tmp_path, monkeypatch):
    monkeypatch.setattr(export_onnx, "take_text", lambda model, text: None)
    with pytest.raises(ExportFailed, match="input 'plan' is not what it must be, text or numbers"):
        Job(table, tmp_path).export(export_onnx, Format.ONNX)


def test_a_model_that_branches_keeps_its_branch_behind_preprocessing(staged, tmp_path):
    x = DRAW.normal(size=(ROWS, 16)).astype(np.float32)
    steps = (Standard(input="x", mean=(0.5,) * 16, scale=(2,) * 16),)
    job = Job(staged("branch", inputs={"x": x}, preprocessing=steps), tmp_path)
    job.refer()
    for format in (Format.ONNX, Format.TORCHSCRIPT):
        job.export(EXPORTS[format], format)
        assert job.judge(format)["refusal"] == ""


def test_the_gpu_job_gives_text_to_onnx_and_codes_to_the_others_and_another_child_makes_the_same_bytes(home, table):
    one = made(table)
    passed = {"runs": PASS, "reproduces": PASS}
    assert one.job()["found"] == {"torch": passed, "onnx": passed, "torchscript": passed}
    files = {"spec": one.gated.spec_file, "weights": one.gated.weights, "samples": one.gated.samples}
    again = [make(one.gated, entry.format, files) for entry in one.candidates]
    assert [entry.artifact for entry in again] == [entry.artifact for entry in one.candidates]


@pytest.mark.parametrize("step", [*STEPS[:4], WORDS[0]], ids=lambda step: step.kind)
def test_a_step_of_the_formats_computes_what_the_training_side_computes(step):
    raw = {"numbers": NUMBERS * 9, "counts": COUNTS * 9, "zone": ZONE, "plan": ZONE - 3, "words": ZONE - 3}
    x = raw[step.input]
    want = apply([step], {step.input: x})[step.input]
    got = module(step)(torch.from_numpy(x))
    assert (got.shape, got.numpy().dtype) == (want.shape, want.dtype)
    np.testing.assert_allclose(got.numpy(), want, rtol=1e-6, atol=1e-6)
    exact = module(step).double()(torch.from_numpy(x.astype(np.float64) if x.dtype == np.float32 else x))
    assert exact.dtype == (torch.int64 if step.kind == "vocabulary" else torch.float64)
