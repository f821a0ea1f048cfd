"""Formats of other packages: what they say of themselves is read, checked, and never run where it is read."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from infra.worker.release_inputs import release_inputs
from packhouse.errors import FormatUnknown, PackhouseError, SpecInvalid
from packhouse.formats.table import ROWS, Format, base_of, before, every, groups, in_order, is_int8, known, row
from packhouse.report.html import OTHER, _ink
from packhouse.spec.model import Spec, parse
from packhouse.spec.supported import check_formats
from tests.infra.worker.test_release_inputs import SPECS
from tests.support.added import ROW, package

SCHEMA_2 = SPECS[0].replace("schema = 1", "schema = 2")


def spec(formats: str = "") -> Spec:
    return parse(f"{SCHEMA_2}\n[formats]\n{formats}\n".encode())


def release_id(formats: str = "") -> str:
    """Of specs that say the same of their bytes."""
    return release_inputs(spec(formats), f"sha256:{'0' * 64}").release_id


@pytest.fixture
def added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(package(tmp_path / "packages"))
    return tmp_path / "packages"


def test_a_row_is_read_and_its_module_is_not_imported(added):
    found = row("acme")
    assert (found.files, found.package, found.threads, found.int8) == (
        ("model.acme",),
        "acme-formats",
        "session",
        False,
    )
    assert (found.served, found.cuda) == (False, False)
    assert known("acme") == "acme"
    assert "acme" in every()
    assert (base_of("acme"), before("acme"), is_int8("acme")) == ("acme", None, False)
    assert in_order(["acme", *reversed(ROWS)]) == [*ROWS, "acme"]
    assert groups(["acme", "onnx-int8", "onnx"]) == [("onnx", "onnx-int8"), ("acme",)]
    assert _ink("acme") == OTHER
    assert release_id('acme = "optional"')
    assert "acme_formats" not in sys.modules


def test_without_the_package_there_is_no_such_format(added, monkeypatch):
    assert known("acme")
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place != str(added)])
    assert known("acme") is None
    with pytest.raises(FormatUnknown, match=r"^format 'acme': no installed package adds it; got these: onnx, "):
        row("acme")


BAD = {
    "a key that is packhouse's": ({"served": True}, "is no row: served: unknown key"),
    "no files": ({"files": None}, "is no row: files: Field required"),
    "three files": ({"files": ("model.a", "model.b", "model.c")}, "is no row: files: "),
    "a path": ({"files": ("model.a/../b",)}, "is no row: files.0: "),
    "another file of a release": ({"files": ("manifest.json",)}, "a file's name does not fit; got manifest.json"),
    "the signature": ({"files": ("model.sig",)}, "a file's name does not fit; got model.sig"),
    "a module inside a package": ({"requires": ("os.path",)}, "is no row: requires.0: "),
    "no function": ({"job": "acme_formats"}, "is no row: job: "),
    "code of another package": ({"job": "tasks.jobs.export_onnx:run"}, "names code of another package; got tasks."),
    "a call": ({"text": f"FORMAT = dict({ROW!r})\n"}, "names no dictionary that can be read: malformed node"),
    "no Python": ({"text": "FORMAT = {\n"}, "names no dictionary that can be read: '{' was never closed"),
    "another name": (
        {"text": f"ROW = {ROW!r}\n"},
        "names no dictionary that can be read; got acme_formats:FORMAT, want",
    ),
    "a list": ({"text": "FORMAT = ['model.acme']\n"}, "names no dictionary that can be read; got acme_formats:FORMAT"),
}


@pytest.mark.parametrize("changed, words", BAD.values(), ids=BAD)
def test_what_is_no_row_is_refused_where_the_format_is_asked_for(tmp_path, monkeypatch, changed, words):
    monkeypatch.syspath_prepend(package(tmp_path / "packages", **changed))
    with pytest.raises(FormatUnknown, match=r"^format 'acme'") as caught:
        row("acme")
    assert words in str(caught.value)
    check_formats(spec())
    assert row("onnx") is ROWS["onnx"]


def test_a_package_can_not_change_a_format_that_is_built_in(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(package(tmp_path / "packages", "onnx"))
    assert row("onnx") is ROWS["onnx"]
    assert every().count("onnx") == 1


def test_two_packages_that_add_one_format_are_refused(added, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(package(tmp_path / "more", module="other_formats", job="other_formats:run"))
    with pytest.raises(FormatUnknown, match="is added by two packages; got acme-formats, other-formats"):
        row("acme")


WRONG = {
    "unknown": ('coreml = "optional"', "source: formats.coreml: no installed package adds it; got these: onnx, "),
    "off": ('torchscirpt = "off"', "source: formats.torchscirpt: no installed package adds it"),
    "its source is off": (
        'onnx = "off"\nonnx-int8 = "off"\nfrom-onnx = "required"',
        "source: formats.from-onnx: is made from onnx, or compared with it, and that is off; set from-onnx",
    ),
    "a file of another": (
        'acme = "required"\nfrom-onnx = "required"',
        "source: formats.from-onnx: has the file model.acme, as has acme",
    ),
}


@pytest.mark.parametrize("formats, words", WRONG.values(), ids=WRONG)
def test_formats_that_can_not_be_tried_are_refused_by_their_keys(added, tmp_path, monkeypatch, formats, words):
    more = {"module": "more_formats", "job": "more_formats:run", "runtime": "more_formats:open_model"}
    monkeypatch.syspath_prepend(package(tmp_path / "more", "from-onnx", made_from="onnx", **more))
    with pytest.raises(SpecInvalid) as caught:
        check_formats(spec(formats), where="source")
    assert str(caught.value).startswith(words)


def test_what_is_installed_changes_no_id_of_a_model_that_does_not_ask_for_it(added, monkeypatch):
    asked, off, without = release_id('acme = "optional"'), release_id('acme = "off"'), release_id()
    assert asked != without == off
    inputs = release_inputs(spec('acme = "optional"'), f"sha256:{'0' * 64}")
    assert inputs.format_packages.keys() == {"acme-formats"}
    assert inputs.format_packages["acme-formats"].version == "1.2"
    module = added / "acme_formats.py"
    module.write_text(module.read_text() + "# changed\n")
    assert release_id('acme = "optional"') != asked
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place != str(added)])
    assert release_id() == without


def test_int8_of_another_package_is_compared_with_its_base(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(package(tmp_path / "packages", "acme-int8", base="onnx", made_from="onnx"))
    assert is_int8("acme-int8")
    assert base_of("acme-int8") == Format.ONNX
    assert groups(["acme-int8", "onnx"]) == [("onnx", "acme-int8")]
    with pytest.raises(PackhouseError, match="is made from onnx, or compared with it, and that is off"):
        check_formats(spec('onnx = "off"\nonnx-int8 = "off"\nacme-int8 = "optional"'))
