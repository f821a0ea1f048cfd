"""The report: one row a format, and a page that no reason can break."""

from __future__ import annotations

import json

import pytest

from packhouse.artifact import Outcome
from packhouse.digest import canonical_json
from packhouse.parity.latency import TIMING_HEADINGS, Timing, in_order, slowest, smallest, timing_cells
from packhouse.parity.preflight import Finding, Severity, Trap
from packhouse.release.manifest import dump, load
from packhouse.report.model import HEADINGS, Report, Row, cells, markdown, size
from packhouse.spec.model import Format
from packhouse.spec.onnxruntimes import Onnx

FULL = Row(
    format=Format.ONNX, outcome=Outcome.PASS, size=2048, smaller=3.5, p50_ms=1.25, p95_ms=2.0, calls=40, speed=1.5,
    max_ratio=1.75, rms_ratio=1.5, accuracy=0.9725,
)  # fmt: skip
INT8 = Row(format=Format.ONNX_INT8, outcome=Outcome.PASS, agreement=0.995, sqnr_db=33.3, calls=20)
OUT = Row(format=Format.PROGRAM, outcome=Outcome.REFUSED, reason="axis | 'time'")


def timing(format: Format, batch: int | None = 1, threads: int = 1, **changes: object) -> Timing:
    given = {"calls": 250, "p50_ms": 0.125, "p95_ms": 0.25, "p99_ms": 0.5, "items_per_s": 8000.0, "busy": 0.98}
    speed = 1.25 if threads == 1 else None
    return Timing(**({"format": format, "batch": batch, "threads": threads, "speed": speed} | given | changes))


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
    timed = report(latency=(timing(Format.ONNX), timing(Format.ONNX, None, 2, p99_ms=None)), untimed=("batch 8",))
    assert load(Report, dump(timed), where="report.json") == timed


def test_a_report_from_before_there_was_a_grid_is_still_read_and_shown():
    document = json.loads(dump(report()))
    del document["latency"], document["untimed"], document["cuda"], document["preflight"]
    old = load(Report, canonical_json(document), where="report.json")
    assert old == report()
    assert "## Latency" not in markdown(old)


def test_the_page_shows_each_timing_with_its_calls_and_says_what_was_not_timed():
    few = timing(Format.PROGRAM, 8, 2, calls=5, p95_ms=None, p99_ms=None)
    page = markdown(report(latency=(timing(Format.ONNX), few), untimed=("program: batch 32 on 2 threads",)))
    section = page.split("## Latency")[1]
    assert "| onnx | 1 | 1 | 0.125 | 0.25 | 0.5 | 8,000 | 1.25x | 0.98 | 250 |" in section
    assert "| program | 8 | 2 | 0.125 |  |  | 8,000 |  | 0.98 | 5 |" in section
    assert "On a processor." in section
    assert "- Not timed, since it would have taken too long: program: batch 32 on 2 threads." in section
    assert len(timing_cells(few)) == len(TIMING_HEADINGS)


def test_the_page_says_where_others_had_the_processor_too():
    shared = "Others had the processor too: busy 0.50 at the median."
    timings = [timing(Format.ONNX, batch, busy=busy) for batch, busy in ((1, 0.4), (8, 0.5), (32, 0.99))]
    waits = timing(Format.ONNX, threads=2, busy=0.1)  # with more threads it also says how little these help
    assert shared in markdown(report(latency=(*timings, waits)))
    assert "Others had" not in markdown(report(latency=(timings[2], waits)))
    assert "Others had" not in markdown(report())


def test_the_smallest_batch_on_one_thread_stands_for_a_format_and_the_slowest_batch_for_its_speed():
    timings = [
        timing(Format.ONNX_INT8, 32, speed=0.75),
        timing(Format.ONNX_INT8, 1, threads=2),
        timing(Format.ONNX_INT8, 1, speed=1.5),
        timing(Format.ONNX, 1, speed=1.0),
    ]
    assert smallest(timings) == {Format.ONNX: timings[3], Format.ONNX_INT8: timings[2]}
    assert slowest(timings) == {Format.ONNX: 1.0, Format.ONNX_INT8: 0.75}
    assert [entry.batch for entry in in_order(timings)] == [1, 1, 32, 1]


def test_the_page_says_which_onnxruntime_reads_a_file_and_that_none_is_known():
    for version, words in (("1.17", "onnxruntime 1.17 or later"), ("", "no onnxruntime that is known")):
        row = FULL.model_copy(update={"onnx": Onnx(opset=20, ir=9, onnxruntime=version)})
        assert f"- onnx: opset 20, IR version 9, read by {words}.\n" in markdown(report(rows=(row, OUT)))
