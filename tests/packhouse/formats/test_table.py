"""The table of formats: each row is complete, and what it names is there."""

from __future__ import annotations

import importlib
import inspect
import re
import tomllib
from pathlib import Path

import pytest

from infra.mlflow.pyfunc import loader
from infra.registry.modelpack import WEIGHT_CONFIG, WEIGHTS, kind
from infra.worker.release_inputs import counted
from packhouse.formats.table import ROWS, SERVED, Format, Row, groups, in_order, known, load
from packhouse.release.choice import PREFERRED
from packhouse.report.html import INKS, OTHER, STYLE
from packhouse.serving.settings import Choice
from packhouse.spec.tables import BuiltIn

ROOT = Path(__file__).resolve().parent.parent.parent.parent
EVERY = list(ROWS.values())
INT8 = [row for row in EVERY if row.int8]


def test_each_format_that_is_built_in_has_its_row_and_no_other_has():
    assert list(ROWS) == [format.value for format in Format] == [row.name for row in EVERY]
    assert [known(name) for name in ROWS] == list(Format)
    assert known("tensorrt") is None


def test_each_row_says_what_can_not_default():
    assert {name for name, field in Row.model_fields.items() if field.is_required()} == {
        "name", "files", "media_type", "job", "runtime", "package", "requires", "threads",
    }  # fmt: skip
    for row in EVERY:
        assert row.requires, row.name
        assert row.way or row.name not in (Format.PROGRAM, Format.ONNX_INT8), row.name


def test_no_two_formats_have_a_file_or_a_job_in_common():
    files = [name for row in EVERY for name in (*row.files, row.data) if name]
    jobs = [row.job for row in EVERY]
    assert len(set(files)) == len(files)
    assert len(set(jobs)) == len(jobs)


def test_each_fp32_format_has_a_media_type_of_its_own_and_its_int8_has_the_same():
    types = [row.media_type for row in EVERY if not row.int8]
    assert len(set(types)) == len(types)
    assert [row.media_type for row in INT8] == [ROWS[str(row.base)].media_type for row in INT8]


@pytest.mark.parametrize("row", EVERY, ids=lambda row: row.name)
def test_its_job_and_its_runtime_are_there_and_count_for_the_id(row):
    module, _, function = row.job.partition(":")
    job = inspect.signature(getattr(importlib.import_module(module), function)).parameters
    given = {"spec", "samples", "model"} if row.made_from else {"spec", "weights", "samples", "program"}
    assert {name for name, each in job.items() if each.default is each.empty} <= given | {"out"} <= job.keys()
    assert ("most" in job) is (row.data is not None)
    assert list(inspect.signature(load(row.runtime)).parameters) == ["path", "outputs", "text", "threads"]
    named = [row.job, row.runtime, *filter(None, [row.session])]
    assert {each.partition(":")[0] for each in named} <= counted().keys()
    for name in row.requires:
        importlib.import_module(name)


@pytest.mark.parametrize("row", EVERY, ids=lambda row: row.name)
def test_what_it_is_compared_with_and_made_from_is_an_fp32_format_that_stands_before_it(row):
    for other in filter(None, (row.base, row.made_from)):
        assert not ROWS[other].int8
        assert in_order([row.name, other])[0] == other


def test_an_fp32_format_and_its_int8_are_timed_side_by_side_and_have_one_colour():
    assert groups(ROWS) == [("onnx", "onnx-int8"), ("torchscript", "torchscript-int8"), ("program",)]
    assert len({*INKS.values(), OTHER}) == len(ROWS) + 1
    for group in groups(ROWS):
        assert len({INKS[name].colour for name in group}) == 1
        assert [INKS[name].hollow for name in group] == [ROWS[name].int8 for name in group]
    for ink in (*INKS.values(), OTHER):
        assert STYLE.count(f"--c{ink.colour}: #") == 2, "for light and for dark"
        assert f"svg .c{ink.colour} " in STYLE


def test_what_is_served_can_be_opened_as_a_session_and_is_what_the_server_and_mlflow_offer():
    assert {name for name in SERVED if not ROWS[name].session} == set()
    assert SERVED == set(Choice) - {Choice.AUTO} == {loader.FP32, loader.INT8} == set(PREFERRED)
    assert {"auto", *ROWS} == loader.KNOWN


def test_each_file_is_a_model_for_modelpack():
    assert {kind(name) for row in EVERY for name in (*row.files, row.data) if name} == {WEIGHTS}
    assert kind("package.toml") == kind("report.html") == WEIGHT_CONFIG


def test_the_spec_and_its_page_have_every_format():
    fields = {field.alias or name for name, field in BuiltIn.model_fields.items()}
    assert fields - set(ROWS) == {"onnxruntime", "opset", "int8_weights"}
    assert set(ROWS) <= fields
    page = (ROOT / "docs" / "spec.md").read_text()
    section = page[page.index("### `[formats]`") : page.index("### `[gates]`")]
    told = dict(re.findall(r"^\| `([a-z0-9-]+)` \|.*\| `(model\.[a-z0-9.]*[a-z0-9])`", section, re.MULTILINE))
    assert told == {row.name: row.file for row in EVERY}


def test_what_a_row_requires_is_what_the_extra_verify_installs():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    installed = {re.split(r"[<>=]", line)[0] for line in extras["verify"]}
    assert {row.package for row in EVERY} == {name for row in EVERY for name in row.requires} == installed
