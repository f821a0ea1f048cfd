"""What was not run, and why, at the end of every run: a green run must not hide it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import pytest

NOT_HERE = ("NOT ", "THIS HOST")
"""How the reasons begin that are about this machine. The others are about the test: it has nothing to test there."""


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reasons = by_reason(terminalreporter.stats.get("skipped", []))
    count = sum(len(tests) for tests in reasons.values())
    if not count:
        return
    terminalreporter.section(f"NOT RUN: {count}, by reason", yellow=True)
    for reason, tests in sorted(reasons.items(), key=lambda entry: (not entry[0].startswith(NOT_HERE), entry[0])):
        terminalreporter.line(f"{len(tests):4} {reason}")
        terminalreporter.line(f"     such as {tests[0]}")


def by_reason(skipped: Iterable[pytest.TestReport | pytest.CollectReport]) -> dict[str, list[str]]:
    """The names of the skipped tests by the reason that each one gave."""
    found: dict[str, list[str]] = defaultdict(list)
    for report in skipped:
        where = report.longrepr
        reason = where[2] if isinstance(where, tuple) else str(where)
        found[reason.removeprefix("Skipped: ")].append(report.nodeid)
    return dict(found)
