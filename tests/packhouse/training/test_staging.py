"""Staging: a source is whole or not there, and what a worker would refuse is refused where the model was trained."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w
import torch
from torch import nn
from typer.testing import CliRunner

import packhouse
from packhouse.architectures import registry
from packhouse.cli.app import app
from packhouse.digest import digest_bytes, digest_file
from packhouse.errors import (
    ArchitectureUnknown,
    PackhouseError,
    ParityRefused,
    SamplesInvalid,
    SpecInvalid,
    StoreUnavailable,
    WeightsInvalid,
)
from packhouse.formats.runtime import torch_runner
from packhouse.parity.trained_outputs import cases, difference
from packhouse.spec.model import SPEC_FILE, Card, parse
from packhouse.spec.steps import Concatenate, OneHot, Standard
from packhouse.spec.types import DType
from packhouse.store import FileStore
from packhouse.training import source
from packhouse.training.source import stage_folder
from packhouse.training.staging import stage
from packhouse.weights.safetensors_codec import read_numpy

X = np.random.default_rng(0).normal(size=(24, 16)).astype(np.float32)


def staged(tmp_path: Path, model: nn.Module | None = None, **options: object) -> packhouse.Staged:
    torch.manual_seed(0)
    given = {
        "to": str(tmp_path / "source"),
        "name": "linear",
        "architecture": "test.linear",
        "inputs": {"x": X},
        "outputs": ["y"],
    }
    return stage(model or registry.build("test.linear", {}), **(given | options))  # type: ignore[arg-type]


def test_a_source_is_whole_and_its_digests_are_right(tmp_path):
    found = staged(tmp_path, description="a model", mlflow="Linear", image="registry.example/linear")
    folder = tmp_path / "source"
    spec = parse((folder / SPEC_FILE).read_bytes())
    assert spec == found.spec
    assert found.url == f"file://{folder}"
    assert found.notes == ()
    for file in (spec.weights, spec.samples):
        assert digest_file(folder / file.file) == file.digest
        assert (folder / file.file).stat().st_size == file.size
    assert spec.inputs[0].shape == ("batch", 16)
    assert spec.outputs[0].shape == ("batch", 4)
    assert (spec.axes["batch"].min, spec.axes["batch"].max) == (1, 64)
    state = registry.build("test.linear", {}).state_dict()
    assert set(read_numpy(folder / spec.weights.file)) == set(state)


class Recorder(FileStore):
    """Notes the order of writes, and breaks off at the one that is to fail."""

    def __init__(self, root: Path, *, fails: str = "") -> None:
        super().__init__(root)
        self.keys: list[str] = []
        self.fails = fails

    def put(self, key: str, body: bytes | Path, *, digest: str) -> None:
        if key == self.fails:
            raise OSError("pulled the plug")
        super().put(key, body, digest=digest)
        self.keys.append(key)


def test_package_toml_is_written_last(tmp_path, monkeypatch):
    store = Recorder(tmp_path / "source")
    monkeypatch.setattr(source, "open_store", lambda url: store)
    staged(tmp_path)
    assert store.keys == ["weights.safetensors", "samples.safetensors", SPEC_FILE]


@pytest.mark.parametrize("fails", ["weights.safetensors", "samples.safetensors", SPEC_FILE])
def test_staging_that_broke_off_leaves_no_source(tmp_path, monkeypatch, fails):
    monkeypatch.setattr(source, "open_store", lambda url: Recorder(tmp_path / "source", fails=fails))
    with pytest.raises(OSError, match="pulled the plug"):
        staged(tmp_path)
    assert not (tmp_path / "source" / SPEC_FILE).exists()


def test_a_store_that_does_not_answer_at_once_is_asked_again(tmp_path, monkeypatch):
    class Busy(Recorder):
        def put(self, key: str, body: bytes | Path, *, digest: str) -> None:
            busy, self.fails = self.fails, ""
            if key == busy:
                raise StoreUnavailable("busy", where=key)
            super().put(key, body, digest=digest)

    store = Busy(tmp_path / "source", fails="weights.safetensors")
    monkeypatch.setattr(source, "open_store", lambda url: store)
    staged(tmp_path)
    assert store.keys == ["weights.safetensors", "samples.safetensors", SPEC_FILE]


@pytest.mark.parametrize("options", [{"name": "Bad Name"}, {"gates": {"atol": 0.1}}, {"inputs": {"x": X * np.nan}}])
def test_what_is_refused_writes_nothing(tmp_path, options):
    with pytest.raises(PackhouseError):
        staged(tmp_path, **options)
    assert not (tmp_path / "source").exists()


def test_the_same_model_staged_twice_gives_the_same_bytes(tmp_path):
    for name in ("one", "two"):
        staged(tmp_path, to=str(tmp_path / name))
    for file in (SPEC_FILE, "weights.safetensors", "samples.safetensors"):
        assert digest_file(tmp_path / "one" / file) == digest_file(tmp_path / "two" / file)


def test_of_tied_weights_one_name_is_written(tmp_path):
    model = registry.build("test.tied", {})
    staged(tmp_path, model, architecture="test.tied")
    assert list(read_numpy(tmp_path / "source" / "weights.safetensors")) == ["encode.weight"]


def test_preprocessing_is_staged_as_numbers_and_samples_as_they_come(tmp_path):
    mean, scale = np.arange(16.0), np.full(16, 2.0)
    options = {"preprocessing": packhouse.Standardise("x", mean, scale, columns=[f"c{n}" for n in range(16)])}
    spec = staged(tmp_path, **options).spec
    (step,) = spec.preprocessing
    assert isinstance(step, Standard)
    assert step.mean == tuple(mean)
    assert step.scale == tuple(scale)
    assert step.columns[3] == "c3"
    samples = read_numpy(tmp_path / "source" / spec.samples.file)
    np.testing.assert_array_equal(samples["calibration.x"], X[::4])


def test_text_is_staged_as_codes_and_a_column_of_categories_has_an_axis_of_its_own(tmp_path):
    """The model gets the 13 numbers and 3 categories that the steps make of it."""
    colours = np.array(["red", "green", "blue", "red"] * 6, dtype=object)
    steps = (
        OneHot(input="colour", categories=("blue", "green", "red"), unknown="zeros"),
        Concatenate(inputs=("x", "colour")),
    )
    spec = staged(tmp_path, inputs={"x": X[:, :13], "colour": colours}, preprocessing=steps).spec
    assert spec.preprocessing == steps
    assert spec.text == {"colour": ("blue", "green", "red")}
    assert (spec.inputs[1].dtype, spec.inputs[1].shape) == (DType.INT64, ("batch", 1))
    samples = read_numpy(tmp_path / "source" / spec.samples.file)
    np.testing.assert_array_equal(samples["calibration.colour"], [[2], [2], [2], [2], [2], [2]])
    np.testing.assert_array_equal(samples["evaluation.colour"][:3], [[1], [0], [2]])


COLOURS = np.array(["red", "green"] * 12)
RED = OneHot(input="colour", categories=("red",), unknown="never")


@pytest.mark.parametrize(
    "inputs, steps, words",
    [
        ({"colour": COLOURS}, (), "inputs: colour: text needs a step that lists it"),
        (
            {"x": X[:, :15], "colour": COLOURS},
            (RED, Concatenate(inputs=("x", "colour"))),
            "colour: no such code; got -1",
        ),
        ({"x": X, "colour": [None] * 24}, (RED,), "is no text; got None; fill gaps with text"),
        ({"x": X}, (RED,), r"preprocessing\[0\].input: 'colour' is not among the inputs, x"),
        (
            {"x": X},
            (Standard(input="x", mean=(1,), scale=(1,)),),
            r"preprocessing\[0\].mean: 1 means, so input 'x' must",
        ),
    ],
)
def test_preprocessing_that_does_not_fit_the_samples_is_named_and_writes_nothing(tmp_path, inputs, steps, words):
    with pytest.raises(PackhouseError, match=words):
        staged(tmp_path, inputs=inputs, preprocessing=steps)
    assert not (tmp_path / "source").exists()


@pytest.mark.parametrize("part, count", [(0.25, 6), (0.5, 12), (0.75, 18), (0.1, 3), (0.01, 1), (0.99, 23)])
def test_samples_are_split_evenly_and_no_sample_is_in_both_parts(tmp_path, part, count):
    labels = np.arange(24) % 3
    spec = staged(tmp_path, labels=labels, calibration=part, outputs=["y"]).spec
    samples = read_numpy(tmp_path / "source" / spec.samples.file)
    chosen = [int(np.flatnonzero((row == X).all(axis=1))[0]) for row in samples["calibration.x"]]
    rest = [int(np.flatnonzero((row == X).all(axis=1))[0]) for row in samples["evaluation.x"]]
    assert len(chosen) == count
    assert sorted(chosen + rest) == list(range(24))
    np.testing.assert_array_equal(samples["label"], labels[rest])
    gaps = np.diff(chosen)
    assert not len(gaps) or gaps.max() - gaps.min() <= 1
    assert spec.outputs[0].scores
    assert spec.samples.labels


@pytest.mark.parametrize(
    "labels, words",
    [
        (np.arange(24) / 7, "labels are whole numbers"),
        (np.full(24, np.nan), "labels are whole numbers"),
        ([f"class {n}" for n in range(24)], "labels are whole numbers"),
        (np.arange(23) % 3, "as many of each input"),
        (np.arange(24), "no such class; got 1 to 23, want 0 to 3"),
        (-np.ones(24, int), "no such class"),
        (np.eye(24), "label: wrong form"),
        (3, "one value is no stack of samples"),
    ],
)
def test_labels_that_are_no_classes_are_refused(tmp_path, labels, words):
    with pytest.raises(SamplesInvalid, match=words):
        staged(tmp_path, labels=labels)


def test_labels_may_be_a_tensor_or_whole_floats(tmp_path):
    for number, labels in enumerate((torch.arange(24) % 4, (np.arange(24) % 4).astype(float), [True, False] * 12)):
        staged(tmp_path, labels=labels, to=str(tmp_path / str(number)))


@pytest.mark.parametrize(
    "inputs, words",
    [
        ({"x": X[:1]}, "two samples at least"),
        ({"x": X[:0]}, "two samples at least"),
        ({}, "two samples at least"),
        ({"x": X, "z": X[:5]}, "as many of each input"),
        ({"x": np.float32(1)}, "one value is no stack of samples"),
        ({"x": [[1.0], [1.0, 2.0]]}, "not an array"),
        ({"x": torch.zeros(4, 16, dtype=torch.bfloat16)}, "not an array"),
        ({"x": X.astype(np.float64)}, "the model fails on them"),
        ({"x": X[:, :5]}, "the model fails on them"),
    ],
)
def test_samples_that_the_model_can_not_take_are_refused(tmp_path, inputs, words):
    with pytest.raises(SamplesInvalid, match=words):
        staged(tmp_path, inputs=inputs)


@pytest.mark.parametrize("calibration", [0, 1, -1, 2, float("nan")])
def test_a_part_that_is_no_part_is_refused(tmp_path, calibration):
    with pytest.raises(SamplesInvalid, match="split in two"):
        staged(tmp_path, calibration=calibration)


def test_another_number_of_outputs_is_refused(tmp_path):
    with pytest.raises(SpecInvalid, match="the model has another number of outputs; got 1"):
        staged(tmp_path, outputs=["y", "z"])


def test_wrong_architecture_arguments_are_refused(tmp_path):
    with pytest.raises(WeightsInvalid) as caught:
        staged(tmp_path, arguments={"hidden": 8})
    assert "layers.0.bias" in str(caught.value)
    assert "got (32,), want (8,)" in str(caught.value)
    with pytest.raises(ArchitectureUnknown, match="can not be built"):
        staged(tmp_path, arguments={"hiden": 8})
    assert not (tmp_path / "source").exists()


def test_arguments_that_toml_has_not_are_refused(tmp_path):
    for argument in (None, np.arange(3), object(), float("nan")):
        with pytest.raises(SpecInvalid):
            staged(tmp_path, architecture="elsewhere.model", arguments={"x": argument})


def test_an_architecture_that_is_not_installed_here_is_noted(tmp_path):
    found = staged(tmp_path, architecture="elsewhere.model")
    assert found.notes == (
        "architecture 'elsewhere.model' is not registered here, so it was not compared with the model",
    )


HEADS = {"hidden_size": 32, "num_hidden_layers": 1, "intermediate_size": 64, "vocab_size": 50}
HEADS |= {"max_position_embeddings": 16}


def attention(heads: int) -> nn.Module:
    torch.manual_seed(0)
    return registry.build("examples.encoder", {**HEADS, "num_attention_heads": heads})


def with_heads(tmp_path: Path, trained: int, told: int, architecture: str = "examples.encoder") -> packhouse.Staged:
    tokens = np.random.default_rng(0).integers(0, 50, (24, 8))
    return staged(
        tmp_path,
        attention(trained),
        architecture=architecture,
        arguments={**HEADS, "num_attention_heads": told},
        inputs={"input_ids": tokens, "attention_mask": np.ones_like(tokens)},
        outputs=["hidden"],
    )


def test_an_architecture_that_fits_the_weights_and_answers_otherwise_is_refused_where_it_is_registered(tmp_path):
    assert {key: value.shape for key, value in attention(8).state_dict().items()} == {
        key: value.shape for key, value in attention(4).state_dict().items()
    }
    with pytest.raises(ParityRefused) as caught:
        with_heads(tmp_path, trained=8, told=4)
    words = (
        "architecture 'examples.encoder' built here: does not answer as the trained model did: output 'hidden' of row "
    )
    assert str(caught.value).startswith(words)
    assert not (tmp_path / "source").exists()
    assert with_heads(tmp_path, trained=8, told=8).notes == ()


def test_the_trained_models_own_answers_travel_with_the_samples(tmp_path):
    """So that a worker, where the registry may build another model, can tell."""
    spec = with_heads(tmp_path, trained=8, told=4, architecture="elsewhere.encoder").spec
    samples = read_numpy(tmp_path / "source" / spec.samples.file)
    (case,) = cases(spec, samples)
    trained, other = (
        replace(case, expected=dict(torch_runner(attention(heads), ["hidden"])(case.inputs))) for heads in (8, 4)
    )
    assert difference(case, trained) == ""
    assert difference(case, other).startswith("output 'hidden' of row ")


def test_a_model_that_does_not_give_the_same_answer_twice_is_noted(tmp_path):
    found = staged(tmp_path, registry.build("test.random", {}), architecture="test.random")
    assert found.notes == ("answer.y: the model gave the same inputs two answers, and will be refused",)
    assert not [name for name in read_numpy(tmp_path / "source" / "samples.safetensors") if name.startswith("answer.")]


def test_a_model_on_another_device_is_refused_with_what_to_do(tmp_path):
    with pytest.raises(SpecInvalid) as caught:
        staged(tmp_path, registry.build("test.linear", {}).to("meta"))
    said = "layers.0.weight: the model is on another device; got meta, want cpu: model.to('cpu') (PH-0262)"
    assert str(caught.value) == said


def test_a_model_without_parameters_is_refused(tmp_path):
    with pytest.raises(WeightsInvalid, match="no parameters"):
        staged(tmp_path, nn.Tanh())


class Pooled(nn.Module):
    """x (batch, time, 3), n int64 (batch,) to: per step (batch, time), pooled (batch, 3), a constant (5,), n + 1."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))

    def forward(self, x: torch.Tensor, n: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return x @ self.weight, x.mean(1) * self.weight, torch.zeros(5), n + 1


def test_axes_and_dtypes_of_outputs_are_read_off_the_model(tmp_path):
    spec = staged(
        tmp_path,
        Pooled(),
        architecture="elsewhere.model",
        inputs={"x": np.zeros((6, 7, 3), np.float32), "n": np.arange(6)},
        axes={"x": ["batch", "time", 3]},
        ranges={"time": (1, 9), "batch": (1, 32)},
        outputs=["steps", "pooled", "constant", "next"],
    ).spec
    assert [output.shape for output in spec.outputs] == [("batch", "time"), ("batch", 3), (5,), ("batch",)]
    assert spec.outputs[3].dtype is DType.INT64
    assert (spec.axes["time"].max, spec.axes["batch"].max) == (9, 32)


def test_what_the_arguments_say_stands_in_the_spec(tmp_path):
    spec = staged(
        tmp_path,
        Pooled(),
        architecture="elsewhere.model",
        inputs={"x": np.zeros((6, 7, 3), np.float32), "n": np.arange(6)},
        axes={"x": ["batch", "time", 3], "steps": ["batch", "steps"], "constant": ["five"]},
        ranges={"time": (1, 9)},
        value_ranges={"x": (-1.5, 2), "n": (0, 99)},
        outputs=["steps", "pooled", "constant", "next"],
        kinds={"pooled": "scores"},
        columns={"x": ["a", "b", "c"], "pooled": ["low", "middle", "high"]},
        card={"task": "pooling", "licence": "MIT", "datasets": ["none"]},
        gates={"int8_worth": 0.2},
    ).spec
    assert spec.schema_version == 2
    assert [output.shape for output in spec.outputs] == [("batch", "steps"), ("batch", 3), ("five",), ("batch",)]
    assert [output.kind.value for output in spec.outputs] == ["value", "scores", "value", "value"]
    assert [tensor.range for tensor in spec.inputs] == [(-1.5, 2), (0, 99)]
    assert spec.inputs[0].columns == ("a", "b", "c")
    assert spec.outputs[1].columns == ("low", "middle", "high")
    assert spec.card == Card(task="pooling", licence="MIT", datasets=("none",))
    assert spec.gates.int8_worth == 0.2


class Alone(nn.Module):
    """Takes one row and no more. x (1, 16)."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x.reshape(1, 16))


def test_a_batch_of_exactly_one_row_is_staged(tmp_path):
    spec = staged(tmp_path, Alone(), architecture="elsewhere.model", ranges={"batch": (1, 1)}).spec
    assert spec.batch == "batch"
    assert (spec.axes["batch"].min, spec.axes["batch"].max) == (1, 1)
    assert spec.outputs[0].shape == ("batch", 4)


@pytest.mark.parametrize("limits", [(1, 2), (2, 2), (5, 5), (4, 64)])
def test_the_model_is_run_on_as_many_rows_as_it_may_get(tmp_path, limits):
    seen = []
    model = registry.build("test.linear", {})
    model.register_forward_pre_hook(lambda module, given: seen.append(len(given[0])))
    spec = staged(tmp_path, model, ranges={"batch": limits}).spec
    assert spec.outputs[0].shape == ("batch", 4)
    assert seen
    assert all(limits[0] <= rows <= limits[1] for rows in seen)


SAID = {
    "a name": ({"name": "Bad Name"}, "name: has another form; got 'Bad Name', want lower-case letters, digits and -"),
    "an architecture": ({"architecture": "no name"}, "architecture: has another form; got 'no name'"),
    "a tolerance": ({"gates": {"atol": 0.1}}, "gates: atol: set both atol and rtol, or neither"),
    "a gate of schema 1": (
        {"gates": {"int8_speed": 0.9}},
        "gates: int8_speed: is a key of schema 1: in schema 2, int8_worth says by which part",
    ),
    "an unknown gate": ({"gates": {"atoll": 0.1}}, "gates: atoll: unknown key"),
    "a want": ({"formats": {"onnx": "maybe"}}, "formats: onnx: Input should be 'required', 'optional' or 'off'; got"),
    "an opset": ({"formats": {"opset": 16}}, "formats: opset: Input should be greater than or equal to 17; got 16"),
    "a range upside down": ({"ranges": {"batch": (9, 1)}}, "ranges: batch: min 9 is above max 1"),
    "a range of one": ({"ranges": {"batch": (9,)}}, "ranges: batch: a range is two sizes; got (9,), want (smallest,"),
    "a range of parts": ({"ranges": {"batch": (1, 1.5)}}, "ranges: batch: are whole numbers; got (1, 1.5)"),
    "a range of nothing": ({"ranges": {"time": (1, 9)}}, "ranges: time: axis 'time' is declared but no input or outp"),
    "an axis without a range": ({"axes": {"x": ["batch", "time"]}}, "axes: x: axis 'time' has no smallest and largest"),
    "a range and sizes": ({"ranges": {"batch": (1, 2)}, "sizes": {"batch": [2]}}, "sizes: batch: has a range too; say"),
    "axes of nothing": ({"axes": {"z": [3]}}, "axes: z: is neither an input nor an output; want x, y"),
    "axes of another shape": ({"axes": {"y": ["batch", 5]}}, "axes: y: are not those of the answer; got (2, 4), want"),
    "values of an output": ({"value_ranges": {"y": (0, 1)}}, "value_ranges: y: is not there; want x"),
    "values upside down": ({"value_ranges": {"x": (1, 0)}}, "value_ranges: x: 1 is above 0"),
    "values outside": ({"value_ranges": {"x": (0, 1)}}, "calibration.x: values outside the declared range"),
    "a kind": ({"kinds": {"y": "score"}}, "kinds: y: Input should be 'scores', 'embedding' or 'value'; got 'score'"),
    "a kind of an input": ({"kinds": {"x": "scores"}}, "kinds: x: is not there; want y"),
    "scores of nothing": ({"scores": ["z"]}, "scores: z: is not there; want y"),
    "columns": ({"columns": {"y": ["one"]}}, "columns: y: 1 names, so the last axis of 'y' must have that size"),
    "a card": ({"card": {"license": "MIT"}}, "card: license: unknown key"),
    "an image": ({"image": "https://registry/x"}, "image: has another form; got 'https://registry/x', want host/path"),
    "an MLflow name": ({"mlflow": "a/b"}, "mlflow: has another form"),
    "an output's name": ({"outputs": ["9 y"]}, "outputs: 9 y: has another form"),
    "an empty batch": ({"ranges": {"batch": (0, 9)}}, "stage: ranges: batch = 0: packhouse "),
    "sizes": ({"sizes": {"batch": [2, 4]}}, "stage: sizes: batch: packhouse "),
    "an embedding": ({"kinds": {"y": "embedding"}}, 'stage: kinds: y = "embedding": packhouse '),
    "another format": (
        {"formats": {"tensorrt": "optional"}},
        "stage: formats: tensorrt: no installed package adds it; got these: onnx, ",
    ),
}


@pytest.mark.parametrize("options, words", SAID.values(), ids=SAID)
def test_a_finding_names_the_argument_and_no_line_of_a_file_that_the_caller_never_wrote(tmp_path, options, words):
    with pytest.raises(PackhouseError) as caught:
        staged(tmp_path, **options)
    assert words in str(caught.value)
    assert SPEC_FILE not in str(caught.value)
    assert not (tmp_path / "source").exists()


def test_a_model_without_a_batch_is_staged_as_it_is(tmp_path):
    model = registry.build("test.unbatched", {})
    spec = staged(tmp_path, model, architecture="test.unbatched", axes={"x": [16]}, outputs=["y", "sign"]).spec
    assert spec.batch is None
    assert [output.shape for output in spec.outputs] == [(4,), (4,)]
    assert [output.dtype for output in spec.outputs] == [DType.FLOAT32, DType.BOOL]


def test_a_model_in_training_is_put_into_eval_mode(tmp_path):
    model = registry.build("test.linear", {}).train()
    staged(tmp_path, model)
    assert not model.training


def test_a_folder_is_staged_with_the_digests_filled_in(tmp_path):
    spec = staged(tmp_path).spec
    folder = shutil.copytree(tmp_path / "source", tmp_path / "draft")
    document = spec.model_dump(mode="json", by_alias=True, exclude_unset=True)
    document |= {"weights": {"file": "weights.safetensors"}, "samples": {}}
    again = stage_folder(folder, document, to=str(tmp_path / "again"))
    assert again.spec == spec
    with pytest.raises(SpecInvalid, match=r"\[weights\] is not a table"):
        stage_folder(folder, document | {"weights": "weights.safetensors"}, to=str(tmp_path / "never"))
    with pytest.raises(SpecInvalid, match=r"\[weights\] names a file that is not there"):
        stage_folder(folder, document | {"weights": {"file": "gone.pt"}}, to=str(tmp_path / "never"))
    assert not (tmp_path / "never").exists()


def draft(folder: Path, document: dict[str, Any]) -> Path:
    """A folder for `packhouse stage`, whose package.toml has neither digests nor sizes."""
    document |= {"weights": {"file": "weights.safetensors"}, "samples": {}}
    (folder / SPEC_FILE).write_text(tomli_w.dumps(document))
    return folder


def of_schema_1(document: dict[str, Any]) -> dict[str, Any]:
    outputs = [{"name": "y", "shape": ["batch", 4], "scores": True}]
    return document | {"schema": 1, "outputs": outputs, "gates": {"int8_speed": 0.5}}


@pytest.mark.parametrize("schema", [1, 2])
def test_a_draft_keeps_its_schema(tmp_path, schema):
    staged(tmp_path)
    folder = shutil.copytree(tmp_path / "source", tmp_path / "draft")
    document = tomllib.loads((folder / SPEC_FILE).read_text())
    folder = draft(folder, of_schema_1(document) if schema == 1 else document)
    result = CliRunner().invoke(app, ["stage", str(folder), "--to", str(tmp_path / "again")])
    assert result.exit_code == 0, result.output
    written = tomllib.loads((tmp_path / "again" / SPEC_FILE).read_text())
    assert written["schema"] == schema
    assert written["outputs"][0].get("scores") is (True if schema == 1 else None)
    assert parse((tmp_path / "again" / SPEC_FILE).read_bytes()).schema_version == schema


@pytest.mark.parametrize(
    "old, new, line, words",
    [
        ("min = 1", "min = 99", "min", "axes.batch.min: min 99 is above max 64"),
        ("[gates]", "[gates]\nint8_speed = 1", "int8_speed", "gates.int8_speed: is a key of schema 1"),
        ("[gates]", "[promotion]\nsize = 1\n[gates]", "", "promotion: packhouse "),
    ],
)
def test_a_finding_in_a_draft_names_the_line_of_the_draft(tmp_path, old, new, line, words):
    staged(tmp_path)
    folder = shutil.copytree(tmp_path / "source", tmp_path / "draft")
    folder = draft(folder, tomllib.loads((folder / SPEC_FILE).read_text()))
    text = f"# what a person wrote\n\n{(folder / SPEC_FILE).read_text().replace(old, new, 1)}"
    (folder / SPEC_FILE).write_text(text)
    with pytest.raises(SpecInvalid) as caught:
        stage_folder(folder, tomllib.loads(text), to=str(tmp_path / "never"), text=text)
    number = next(number for number, read in enumerate(text.splitlines(), start=1) if read.startswith(line or "#"))
    assert str(caught.value).startswith(f"{SPEC_FILE}:{number}: {words}" if line else f"{SPEC_FILE}: {words}")
    assert not (tmp_path / "never").exists()


def test_a_file_that_is_not_what_package_toml_says_is_refused(tmp_path):
    spec = staged(tmp_path).spec
    folder = shutil.copytree(tmp_path / "source", tmp_path / "draft")
    document = spec.model_dump(mode="json", by_alias=True, exclude_unset=True)
    document["weights"]["sha256"] = digest_bytes(b"other").removeprefix("sha256:")
    with pytest.raises(PackhouseError, match="sha256 differs"):
        stage_folder(folder, document, to=str(tmp_path / "never"))
    assert not (tmp_path / "never" / SPEC_FILE).exists()


def test_importing_packhouse_brings_in_neither_torch_nor_an_orchestrator_and_asks_no_network():
    program = (
        "import socket, sys\n"
        "def no(*_, **__): raise AssertionError('network')\n"
        "socket.socket.connect = socket.create_connection = socket.getaddrinfo = no\n"
        "import packhouse\n"
        "heavy = {'torch', 'prefect', 'flows', 'tasks', 'infra', 'mlflow', 'docker', 'onnx', 'onnxruntime', 'boto3'}\n"
        "found = sorted(heavy & {name.split('.')[0] for name in sys.modules})\n"
        "assert not found, found\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
