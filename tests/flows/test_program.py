"""A `.pt2` that needs no class, through the whole line: only from where its operator trusts it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import packhouse
from flows.release import released as release
from flows.run_result import Status
from infra.settings import settings
from infra.worker.context import WorkerContext, use
from packhouse.release.lookup import find, read_manifest
from packhouse.spec.model import SPEC_FILE, Format, parse, render
from packhouse.store import open_store
from packhouse.trust.verify import verify
from tests.packhouse.architectures.test_exported_program import evaluated, exported, images, read, written

pytestmark = [pytest.mark.flow, pytest.mark.usefixtures("api")]


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> Path:
    """The folder of a staged program, which tests copy: exporting it takes seconds."""
    staged = packhouse.stage(
        exported(),
        to=str(tmp_path_factory.mktemp("original") / "program"),
        name="program",
        architecture="program",
        inputs={"x": images(48)},
        outputs=["y"],
        gates={"int8_worth": 0, "int8_sqnr_db": 20.0},
    )
    return Path(staged.url.removeprefix("file://"))


@pytest.fixture
def program(original: Path, tmp_path: Path) -> str:
    return f"file://{shutil.copytree(original, tmp_path / 'sources' / 'program')}"


def trusts(monkeypatch, sandbox, prefix: Path) -> None:
    monkeypatch.setenv("PACKHOUSE_TRUSTED_PROGRAMS", f'["{prefix}"]')
    settings.cache_clear()
    use(WorkerContext(settings(), sandbox))


def test_a_trusted_program_is_released_in_every_format_without_its_class(home, program, monkeypatch, sandbox, tmp_path):
    trusts(monkeypatch, sandbox, tmp_path / "sources")
    (end,) = release([program])
    assert end.status is Status.RELEASED, end.reason
    found = find(open_store(str(home / "store")), "program@latest")
    manifest = read_manifest(found, found.record)
    assert {made.format for made in manifest.formats} == {*Format} - {Format.TORCHSCRIPT_INT8}
    assert verify(found).formats == tuple(made.format for made in manifest.formats)
    staged = parse(Path(program.removeprefix("file://"), SPEC_FILE).read_bytes()).weights
    assert manifest.inputs.weights == staged.digest
    assert manifest.artifact("model.pt2").digest == staged.digest
    (end,) = release([program])
    assert end.status is Status.UNCHANGED, end.reason


def test_a_program_from_elsewhere_is_refused_before_it_is_fetched(home, program, monkeypatch, sandbox, tmp_path):
    (end,) = release([program])
    assert end.status is Status.REFUSED
    assert "is a program (.pt2), which is code" in end.reason
    assert "PACKHOUSE_TRUSTED_PROGRAMS" in end.reason
    trusts(monkeypatch, sandbox, tmp_path / "others")
    (end,) = release([program])
    assert "is a program (.pt2), which is code" in end.reason
    assert not list((home / "cache" / "sha256").rglob("*.pt2"))


def test_a_program_with_a_planted_expression_is_refused_by_the_gate(home, program, monkeypatch, sandbox, tmp_path):
    trusts(monkeypatch, sandbox, tmp_path / "sources")
    folder = Path(program.removeprefix("file://"))
    written(folder / "model.pt2", evaluated(read(folder / "model.pt2")))
    spec, data = parse((folder / SPEC_FILE).read_bytes()), (folder / "model.pt2").read_bytes()
    digest = packhouse.digest.digest_bytes(data).removeprefix("sha256:")
    weights = spec.weights.model_copy(update={"sha256": digest, "size": len(data)})
    (folder / SPEC_FILE).write_bytes(render(spec.model_copy(update={"weights": weights})))
    (end,) = release([program])
    assert end.status is Status.REFUSED
    assert "carries an expression that is no size" in end.reason
    assert not (home / "store" / "program" / "releases").exists()
