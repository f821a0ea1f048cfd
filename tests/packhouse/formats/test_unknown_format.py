"""A format that this version does not know: its bytes are proven, and nothing runs it or picks it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import packhouse
from packhouse.artifact import Outcome, Verdict
from packhouse.digest import digest_file
from packhouse.errors import DigestMismatch, NotFound, ReleaseInvalid, Unavailable
from packhouse.parity.latency import Timing
from packhouse.release.lookup import find
from packhouse.release.manifest import (
    PARITY,
    REPORT_JSON,
    Manifest,
    RatioTolerance,
    Release,
    Runtime,
    Selection,
    dump,
    load,
)
from packhouse.report import html
from packhouse.report.model import Report, Row, markdown
from packhouse.serving.release import open_release
from packhouse.serving.settings import Choice, from_environment
from packhouse.spec.model import Format
from packhouse.store import FileStore
from packhouse.trust.verify import verify
from tests.support.small_release import MODEL, RATIO, Small, flip, seal

OTHER = Release(
    name="tensorrt",
    files=("model.engine", "model.plan"),
    runtime=Runtime(name="tensorrt", oldest="2026.1", facts={"ir": 11}),
    tolerance=RATIO,
    way="convert",
    computed_in="float32",
    selection=Selection.AUTO,
)
LINE = "tensorrt: not run: install tensorrt (PH-0151)"


def passes(folder: Path, name: str) -> Verdict:
    return Verdict(check=PARITY, subject="tensorrt", outcome=Outcome.PASS, compared=(digest_file(folder / name),))


@pytest.fixture
def small(release: Small, tmp_path: Path) -> Small:
    """With a format more, of two files."""
    small = release.copied(tmp_path / "store")
    (small.folder / "model.engine").write_text("<net/>")
    (small.folder / "model.plan").write_bytes(b"weights")
    manifest = small.manifest
    seal(
        small.folder,
        manifest.inputs,
        {},
        formats=(OTHER, *manifest.formats),
        verdicts=(*manifest.verdicts, passes(small.folder, "model.engine")),
    )
    return small


def command(*arguments: str, store: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "packhouse", *arguments, "--store", str(store)],
        env=os.environ | {"PACKHOUSE_HOME": str(store.parent / "home")},
        capture_output=True,
        text=True,
        check=False,
    )


def test_all_bytes_are_verified_and_the_format_is_not_run(small):
    with pytest.raises(Unavailable) as caught:
        verify(find(FileStore(small.store), f"{MODEL}/{small.release}"))
    assert str(caught.value) == f"{MODEL}/{small.release}: {LINE}"
    assert caught.value.exit_status == 2


@pytest.mark.parametrize("name", OTHER.files)
def test_one_changed_byte_of_it_is_refused(small, name):
    flip(small.folder / name)
    with pytest.raises(DigestMismatch, match=name):
        verify(find(FileStore(small.store), f"{MODEL}/{small.release}"))


def test_a_format_that_is_known_and_wrong_is_said_first(small):
    manifest = small.manifest
    onnx = next(made for made in manifest.formats if made.format is Format.ONNX)
    worse = onnx.model_copy(update={"tolerance": RatioTolerance(max=0, rms=0)})
    seal(small.folder, manifest.inputs, {}, formats=(OTHER, worse), verdicts=manifest.verdicts)
    with pytest.raises(ReleaseInvalid, match="onnx: "):
        verify(find(FileStore(small.store), f"{MODEL}/{small.release}"))


def test_the_commands_say_what_to_install_and_list_it(small):
    proven = command("verify", f"{MODEL}@latest", store=small.store)
    assert (proven.returncode, proven.stdout) == (2, "")
    assert proven.stderr == f"unavailable: {MODEL}/{small.release}: {LINE}\n"
    listed = command("ls", store=small.store)
    assert (listed.returncode, listed.stdout) == (0, f"{MODEL}/{small.release} latest#1\n")


def test_it_is_fetched_with_all_its_files_and_never_picked(small, tmp_path):
    given = {"store": str(small.store), "floors": tmp_path}
    whole = packhouse.fetch(f"{MODEL}@latest", tmp_path / "whole", **given).folder
    assert (whole / "model.plan").read_bytes() == b"weights"
    assert packhouse.open_session(whole).get_outputs()[0].name == "y"
    with pytest.raises(Unavailable, match=f"{re.escape(LINE)}$"):
        packhouse.open_session(whole, "tensorrt")
    part = packhouse.fetch(f"{MODEL}@latest", tmp_path / "part", formats=["tensorrt"], **given).folder
    assert {"model.engine", "model.plan"} <= {path.name for path in part.iterdir()}
    assert not (part / "model.onnx").exists()
    with pytest.raises(NotFound, match="no such format here"):
        packhouse.open_session(part)
    with pytest.raises(NotFound, match="the release has no such format"):
        packhouse.fetch(f"{MODEL}@latest", tmp_path / "no", formats=["coreml"], **given)


def test_the_server_serves_another_one_and_says_what_to_install(small):
    given = {"expected": None, "vnni": True, "cuda": False, "golden": True}
    assert open_release(small.folder, choice=Choice.AUTO, **given).made.format is Format.ONNX
    settings = from_environment({"PACKHOUSE_FORMAT": "tensorrt"})
    with pytest.raises(Unavailable, match=f"^{MODEL}: {re.escape(LINE)}$"):
        open_release(small.folder, choice=settings.choice, **given)
    with pytest.raises(ReleaseInvalid, match="torchscript: can not be served"):
        open_release(small.folder, choice="torchscript", **given)


def test_a_known_format_that_must_be_named_is_not_picked(small):
    manifest = small.manifest
    named = tuple(made.model_copy(update={"selection": Selection.NAMED}) for made in manifest.formats)
    seal(small.folder, manifest.inputs, {}, formats=named, verdicts=manifest.verdicts)
    given = {"expected": None, "vnni": True, "cuda": False, "golden": True}
    with pytest.raises(ReleaseInvalid, match="onnx: the release has no such format"):
        open_release(small.folder, choice=Choice.AUTO, **given)
    assert open_release(small.folder, choice=Choice.ONNX, **given).made.format is Format.ONNX
    with pytest.raises(NotFound, match="no such format here"):
        packhouse.open_session(small.folder)
    assert packhouse.open_session(small.folder, Format.ONNX).get_outputs()


def test_a_report_that_names_it_is_read_and_shown(small):
    manifest = load(Manifest, dump(small.manifest), where="manifest.json")
    figures = {"batch": 1, "threads": 1, "calls": 20, "items_per_s": 1.0, "busy": 1.0}
    report = Report(
        model=MODEL,
        release=manifest.release,
        source="file:///sources/linear",
        made_at="2030-01-01T00:00:00+00:00",
        seconds=1.0,
        processor="a processor",
        case="batch 1",
        weights_bytes=100,
        parameters=25,
        accuracy=None,
        rows=(
            Row(format="tensorrt", outcome=Outcome.PASS, size=70, p50_ms=0.5),
            Row(format=Format.ONNX, outcome=Outcome.PASS, size=90),
        ),
        notes=(),
        lockdown=(),
        latency=(
            Timing(format="tensorrt", p50_ms=0.5, speed=1.1, **figures),
            Timing(format=Format.ONNX, p50_ms=0.6, **figures),
        ),
    )
    read = load(Report, dump(report), where=REPORT_JSON)
    assert [row.format for row in read.rows] == ["tensorrt", Format.ONNX]
    assert read.rows[1].format is Format.ONNX
    assert "| tensorrt | 70 B |" in markdown(read)
    assert "tensorrt" in html.html(read)
    (small.folder / REPORT_JSON).write_bytes(dump(report))
    for flags in ([], ["--latency"]):
        shown = command("show", f"{MODEL}@latest", *flags, store=small.store)
        assert shown.returncode == 0, shown.stderr
        assert "tensorrt" in shown.stdout
