"""Programs: a `.pt2` is staged without what it should not carry, and what carries more than weights and sizes is
refused before torch sees it."""

from __future__ import annotations

import json
import re
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import packhouse
from packhouse.architectures import exported_program
from packhouse.errors import SpecInvalid, UnsafeWeights
from packhouse.parity.probes import read_samples
from packhouse.spec.model import SPEC_FILE, parse
from packhouse.training.source import stage_folder
from packhouse.weights.safetensors_codec import write_numpy

MODEL = "models/model.json"


class Convolutional(nn.Module):
    """x: float32, (batch, 1, 8, 8) -> (batch, 4)."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.norm, self.last = nn.Conv2d(1, 16, 3), nn.BatchNorm2d(16), nn.Linear(16 * 36, 4)
        self.register_buffer("factor", torch.full((1,), 1.5), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        seen = torch.relu(self.norm(self.convolution(x))).flatten(1)
        return self.last(seen) * self.factor + torch.tensor([1.0, 0.0, -1.0, 2.0])


def images(rows: int = 24) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(rows, 1, 8, 8)).astype(np.float32)


def exported(most: int = 64) -> torch.export.ExportedProgram:
    torch.manual_seed(0)
    batch = torch.export.Dim("batch", min=1, max=most)
    return torch.export.export(Convolutional().eval(), (torch.from_numpy(images(2)),), dynamic_shapes=({0: batch},))


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Path:
    """As a user's script writes it: with example inputs, which torch pickles."""
    path = tmp_path_factory.mktemp("plain") / "model.pt2"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(exported(), str(path))
    return path


def read(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {entry.filename: archive.read(entry) for entry in archive.infolist()}


def written(path: Path, entries: dict[str, bytes], *, compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, data in entries.items():
            archive.writestr(name, data)
    return path


def test_a_staged_program_carries_no_example_inputs_and_answers_as_it_was_exported(tmp_path):
    program = exported()
    given = {"architecture": "program", "inputs": {"x": images()}, "outputs": ["y"]}
    staged = packhouse.stage(program, to=str(tmp_path / "source"), name="m", **given)
    assert staged.spec.weights.file == "model.pt2"
    path = tmp_path / "source" / "model.pt2"
    assert {name for name in read(path) if "sample_inputs" in name and read(path)[name]} == set()
    samples = read_samples(tmp_path / "source" / "samples.safetensors")
    x = torch.from_numpy(samples["evaluation.x"][:8].copy())
    np.testing.assert_array_equal(samples["answer.y"], exported().module()(x).detach().numpy())
    again = packhouse.stage(exported(), to=str(tmp_path / "again"), name="m", **given)
    assert again.spec == staged.spec


def test_packhouse_stage_of_a_folder_takes_the_example_inputs_out_and_leaves_the_folder_as_it_was(tmp_path, plain):
    folder, before = tmp_path / "draft", plain.read_bytes()
    folder.mkdir()
    (folder / "model.pt2").write_bytes(before)
    x = images()
    write_numpy(folder / "samples.safetensors", {"calibration.x": x[:6], "evaluation.x": x[6:]})
    document = {
        "schema": 1,
        "model": {"name": "m"},
        "architecture": {"name": "program"},
        "axes": {"batch": {"max": 64}},
        "inputs": [{"name": "x", "shape": ["batch", 1, 8, 8]}],
        "outputs": [{"name": "y", "shape": ["batch", 4]}],
        "weights": {"file": "model.pt2"},
    }
    stage_folder(folder, document, to=str(tmp_path / "source"))
    assert (folder / "model.pt2").read_bytes() == before
    staged = tmp_path / "source" / "model.pt2"
    assert staged.stat().st_size == parse((tmp_path / "source" / SPEC_FILE).read_bytes()).weights.size
    exported_program.taken(staged, tmp_path / "program.pt2")
    answer = exported_program.load(tmp_path / "program.pt2")(torch.from_numpy(x))
    np.testing.assert_array_equal(answer.detach().numpy(), exported().module()(torch.from_numpy(x)).detach().numpy())


def test_a_program_that_was_saved_with_its_example_inputs_is_refused_with_the_way_out(tmp_path, plain):
    words = "model.pt2: data/sample_inputs/model.pt: carries a pickle; packhouse stage takes example inputs out"
    with pytest.raises(UnsafeWeights, match=re.escape(words)):
        exported_program.taken(plain, tmp_path / "program.pt2")


def pickled(entries: dict[str, bytes]) -> dict[str, bytes]:
    """Says of a weight that it is one."""
    (name,) = (name for name in entries if name.endswith("model_weights_config.json"))
    return entries | {name: entries[name].replace(b'"use_pickle": false', b'"use_pickle": true', 1)}


def evaluated(entries: dict[str, bytes]) -> dict[str, bytes]:
    """A size that is a call."""
    (name,) = (name for name in entries if name.endswith(MODEL))
    changed = re.sub(rb'"expr_str": *"[^"]*"', b"\"expr_str\": \"__import__('os').mkdir('PLACE')\"", entries[name])
    assert changed != entries[name]
    assert json.loads(changed)
    return entries | {name: changed}


def taken_and_loaded(path: Path) -> nn.Module:
    exported_program.taken(path, path.with_name("program.pt2"))
    return exported_program.load(path.with_name("program.pt2"))


TAMPERED: dict[str, tuple[Callable[[dict[str, bytes]], dict[str, bytes]], str]] = {
    "a pickled weight": (pickled, "carries a pickle"),
    "an expression": (evaluated, "carries an expression that is no size"),
    "a custom object": (lambda e: e | {"model/data/constants/custom_obj_0": b"\x80\x04."}, "carries a pickle"),
    "a compiled library": (lambda e: e | {"model/data/aotinductor/model/x.so": b"\x7fELF"}, "carries a pickle"),
    "an entry twice": (lambda e: e | {f"other/{MODEL}": b"{}"}, "is not an archive that torch.export.save writes"),
    "a file outside": (lambda e: e | {"loose": b""}, "is not an archive that torch.export.save writes"),
    "no graph": (lambda e: {k: v for k, v in e.items() if not k.endswith(MODEL)}, "torch.export.load refuses it"),
    "a cut graph": (lambda e: e | {f"model/{MODEL}": b"{}"}, "torch.export.load refuses it"),
}


@pytest.mark.parametrize("change, words", TAMPERED.values(), ids=TAMPERED)
def test_a_tampered_program_is_refused_and_nothing_in_it_runs(tmp_path, plain, change, words):
    exported_program.without_examples(plain, tmp_path / "good.pt2")
    exported_program.load(tmp_path / "good.pt2")
    entries = change(read(tmp_path / "good.pt2"))
    place = tmp_path / "ran"
    entries = {name: data.replace(b"PLACE", str(place).encode()) for name, data in entries.items()}
    with pytest.raises(UnsafeWeights, match=words):
        taken_and_loaded(written(tmp_path / "model.pt2", entries))
    assert not place.exists()


def test_a_compressed_archive_and_a_cut_one_are_refused(tmp_path, plain):
    exported_program.without_examples(plain, tmp_path / "good.pt2")
    packed = written(tmp_path / "packed.pt2", read(tmp_path / "good.pt2"), compression=zipfile.ZIP_DEFLATED)
    (tmp_path / "cut.pt2").write_bytes((tmp_path / "good.pt2").read_bytes()[:-100])
    for path, words in ((packed, "a compressed entry"), (tmp_path / "cut.pt2", "not a zip file")):
        with pytest.raises(UnsafeWeights, match=words):
            exported_program.taken(path, tmp_path / "program.pt2")


@pytest.mark.parametrize("model, architecture", [(nn.Linear(2, 2), "program"), (None, "test.linear")])
def test_a_program_is_staged_as_a_program_and_nothing_else_is(tmp_path, model, architecture):
    with pytest.raises(SpecInvalid, match="model and architecture do not fit"):
        packhouse.stage(
            model or exported(),
            to=str(tmp_path / "source"),
            name="m",
            architecture=architecture,
            inputs={"x": images()},
            outputs=["y"],
        )
