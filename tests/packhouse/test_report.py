"""The report: one row a format, and a page that no reason can break."""

from __future__ import annotations

import pytest

from packhouse.artifact import Outcome
from packhouse.manifest import dump, load
from packhouse.onnxruntimes import Onnx
from packhouse.preflight import Finding, Severity, Trap
from packhouse.report import HEADINGS, Report, Row, cells, markdown, size
from packhouse.spec import Format

FULL = Row(
    format=Format.ONNX, outcome=Outcome.PASS, size=2048, smaller=3.5, p50_ms=1.25, p95_ms=2.0, calls=40, speed=1.5,
    max_ratio=1.75, rms_ratio=1.5, accuracy=0.9725,
)  # fmt: skip
INT8 = Row(format=Format.ONNX_INT8, outcome=Outcome.PASS, agreement=0.995, sqnr_db=33.3, calls=20)
OUT = Row(format=Format.PROGRAM, outcome=Outcome.REFUSED, reason="axis | 'time'")


def report(**changes: object) -> Report:
    given = {
        "model": "m",
        "release": "0" * 32,
        "source": "file:///x",
        "made_at": "2030-01-01T00:00:00+00:00",
        "seconds": 12.34,
        "processor": "a processor",
        "case": "batch 1",
        "weights_bytes": 1024,
        "parameters": 1234567,
        "accuracy": 0.98,
        "rows": (FULL, INT8, OUT),
        "notes": ("a note",),
        "lockdown": ("seccomp",),
    }
    return Report(**(given | changes))


@pytest.mark.parametrize(
    "count, text",
    [(None, ""), (0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (150 * 1024, "150 KiB"), (1536 * 1024, "1.5 MiB"),
     (5 * 1024**3, "5.0 GiB"), (5000 * 1024**3, "5000 GiB")],
)  # fmt: skip
def test_bytes_are_written_for_people(count, text):
    assert size(count) == text


def test_a_row_has_a_cell_for_every_heading():
    expected = ("onnx", "2.0 KiB", "3.5x", "1.25", "2", "1.5x", "1.75x rounding", "97.25%", "pass")
    assert cells(FULL) == expected
    assert len(expected) == len(HEADINGS)
    assert cells(INT8)[6:] == ("33.3 dB", "99.50% agree", "pass")
    assert cells(OUT)[-1] == "refused: axis | 'time'"


def test_every_line_of_the_table_has_the_same_cells_whatever_a_reason_says():
    table = [line for line in markdown(report()).splitlines() if line.startswith("|")]
    assert len(table) == 5
    assert {line.count("|") for line in table} == {len(HEADINGS) + 1}


def test_the_page_says_what_was_measured_and_how_often():
    page = markdown(report())
    assert "1,234,567 parameters" in page
    assert "20 to 40 calls" in page
    assert "98.00%" in page
    assert "held to: seccomp." in page
    assert "- a note" in page
    assert "no calls" in markdown(report(rows=(OUT,)))
    assert "held-out" not in markdown(report(accuracy=None))


def test_the_traps_have_a_section_of_their_own_where_there_are_any():
    assert "Preflight" not in markdown(report())
    branch = Finding(trap=Trap.BRANCH, what="the model branches on data", where="shop/models.py:41", proof="proven")
    unknown = Finding(trap=Trap.STATE, what="state | changes", severity=Severity.REFUSED)
    page = markdown(report(preflight=(branch, unknown)))
    assert "\n\n## Preflight\n\n- warning: the model branches on data at shop/models.py:41 (proven). Make " in page
    assert "\n- refused: state | changes. Take " in page
    found = report(preflight=(branch, unknown))
    assert load(Report, dump(found), where="report.json") == found


def test_a_report_is_read_back_as_it_was_written():
    assert load(Report, dump(report()), where="report.json") == report()


def test_the_page_says_which_onnxruntime_reads_a_file_and_that_none_is_known():
    for version, words in (("1.17", "onnxruntime 1.17 or later"), ("", "no onnxruntime that is known")):
        row = FULL.model_copy(update={"onnx": Onnx(opset=20, ir=9, onnxruntime=version)})
        assert f"- onnx: opset 20, IR version 9, read by {words}.\n" in markdown(report(rows=(row, OUT)))
