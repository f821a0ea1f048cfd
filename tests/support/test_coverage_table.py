"""The table of lines that ran: its rows, and the floor."""

from __future__ import annotations

import json
import sys

import pytest

from tests.support import coverage_table
from tests.support.coverage_table import Row, folder, rows, table


def file(ran: int, missing: int) -> dict[str, dict[str, int]]:
    return {"summary": {"covered_lines": ran, "missing_lines": missing}}


FILES = {
    "packhouse/spec/model.py": file(9, 1),
    "packhouse/spec/steps.py": file(10, 0),
    "packhouse/errors.py": file(1, 1),
    "flows/release.py": file(199, 1),
}


@pytest.mark.parametrize(
    "path, expected",
    [
        ("packhouse/spec/model.py", "packhouse/spec"),
        ("packhouse/errors.py", "packhouse"),
        ("infra/mlflow/pyfunc/loader.py", "infra/mlflow"),
        ("flows/release.py", "flows"),
    ],
)
def test_a_file_counts_for_its_folder(path, expected):
    assert folder(path) == expected


def test_folders_are_summed_and_the_total_is_last():
    assert rows(FILES) == [
        Row("flows", 200, 199),
        Row("packhouse", 2, 1),
        Row("packhouse/spec", 20, 19),
        Row("total", 222, 219),
    ]


def test_a_part_is_rounded_down():
    assert "flows                       200   99%" in table(rows(FILES))


@pytest.mark.parametrize("floor, status", [("98.6", 0), ("98.7", 1)])
def test_a_total_below_the_floor_fails(floor, status, tmp_path, monkeypatch, capsys):
    (tmp_path / "measured.json").write_text(json.dumps({"files": FILES}))
    monkeypatch.setattr(sys, "argv", ["coverage_table", str(tmp_path / "measured.json"), "--floor", floor])
    assert coverage_table.main() == status
    assert (f"below the floor of {floor}%" in capsys.readouterr().out) == bool(status)


def test_a_run_that_measured_nothing_fails(tmp_path, monkeypatch):
    (tmp_path / "measured.json").write_text('{"files": {}}')
    monkeypatch.setattr(sys, "argv", ["coverage_table", str(tmp_path / "measured.json")])
    assert coverage_table.main() == 1
