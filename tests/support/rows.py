"""Rows of the table of formats for a test: the same format, made by another job."""

from __future__ import annotations

import pytest

from packhouse.formats import table


def plant(monkeypatch: pytest.MonkeyPatch, format: str, fault: str) -> None:
    """The format is made by a function of tests/support/planted.py, as long as the test runs."""
    other = table.row(format).model_copy(update={"job": f"tests.support.planted:{fault}"})
    monkeypatch.setitem(table.ROWS, str(format), other)
