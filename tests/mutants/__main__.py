"""Plants each fault of table.toml in a copy of this repository, and runs the tests that must catch it: `make mutants`.

`python -m tests.mutants [--only ID ...] [--jobs N]`. First all named tests run on an unchanged copy, where they must
pass. Then each fault is planted alone: at least one of its tests must fail in its own body, by an assertion or an
error of the product. A test that can not be imported or set up, that is skipped or that takes too long catches
nothing. Exit status: 0, every fault was caught; 1, one was not.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib.util import cache_from_source
from pathlib import Path
from queue import SimpleQueue

from tests.mutants.rows import ROOT, Mutant, mutants

LEFT_OUT = (".*", "__pycache__", "*.egg-info", "build", "wheels")
"""What a copy does not need: hidden files and folders, and what was built."""

NOT_THE_PRODUCT = ("ImportError", "ModuleNotFoundError", "SyntaxError", "IndentationError", "NameError")
"""A fault whose text is wrong fails every test. That proves nothing."""

TIMEOUT_S = 600
BASELINE_TIMEOUT_S = 3600
SHOWN = 110


@dataclass
class Ran:
    """What one run of pytest said, by the tests' node ids without parameters.

    failed: test -> the first line of its failure. passed, skipped: tests. broken: why the run proves nothing.
    """

    passed: set[str] = field(default_factory=set)
    failed: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    broken: str = ""


@dataclass(frozen=True)
class Outcome:
    mutant: Mutant
    caught_by: str = ""
    words: str = ""
    seconds: float = 0.0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", action="append", default=[], metavar="ID", help="this fault; may be given again")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="faults at a time, each in its own copy")
    options = parser.parse_args()
    try:
        rows = _chosen(mutants(), options.only)
    except ValueError as error:
        return _said(str(error))
    with tempfile.TemporaryDirectory(prefix="packhouse-mutants-") as name:
        copies = [_copied(Path(name) / str(number)) for number in range(max(1, options.jobs))]
        named = sorted({test for row in rows for test in row.tests})
        print(f"{len(rows)} faults, {len(named)} tests; first without any fault", file=sys.stderr, flush=True)
        healthy = _pytest(copies[0], named, timeout_s=BASELINE_TIMEOUT_S)
        if healthy.broken or healthy.failed:
            return _said(f"without any fault: {healthy.broken or healthy.failed}")
        outcomes = list(_outcomes(rows, copies, healthy))
    _show(outcomes)
    return 1 if any(not outcome.caught_by for outcome in outcomes) else 0


def _chosen(rows: Sequence[Mutant], only: Sequence[str]) -> list[Mutant]:
    """Raises ValueError: no such fault, or one whose text is gone."""
    if unknown := sorted(set(only) - {row.id for row in rows}):
        raise ValueError(f"no such mutant: {', '.join(unknown)}")
    chosen = [row for row in rows if not only or row.id in only]
    for row in chosen:
        row.planted(ROOT)
    return chosen


def _copied(folder: Path) -> Path:
    shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(*LEFT_OUT), symlinks=True)
    return folder


def _outcomes(rows: Sequence[Mutant], copies: Sequence[Path], healthy: Ran) -> Iterator[Outcome]:
    free = SimpleQueue[Path]()
    for copy in copies:
        free.put(copy)

    def one(row: Mutant) -> Outcome:
        copy = free.get()
        try:
            outcome = _outcome(row, copy, healthy)
        finally:
            free.put(copy)
        verdict = f"caught by {outcome.caught_by}" if outcome.caught_by else "NOT CAUGHT"
        print(f"{row.id}: {verdict} ({outcome.seconds:.0f} s): {outcome.words}", file=sys.stderr, flush=True)
        return outcome

    with ThreadPoolExecutor(len(copies)) as pool:
        yield from pool.map(one, rows)


def _outcome(row: Mutant, copy: Path, healthy: Ran) -> Outcome:
    started = time.monotonic()
    runnable = [test for test in row.tests if _function(test) in healthy.passed]
    if not runnable:
        reasons = [healthy.skipped.get(_function(test), "did not run") for test in row.tests]
        return Outcome(row, words=f"skipped here: {reasons[0]}")
    path = copy / row.file
    healthy_text = path.read_text()
    _write(path, row.planted(copy))
    try:
        ran = _pytest(copy, runnable, timeout_s=TIMEOUT_S)
    finally:
        _write(path, healthy_text)
    seconds = time.monotonic() - started
    caught = {test: words for test, words in ran.failed.items() if not words.startswith(NOT_THE_PRODUCT)}
    if caught:
        test, words = next(iter(caught.items()))
        return Outcome(row, test, words, seconds)
    return Outcome(row, words=ran.broken or next(iter(ran.failed.values()), "all its tests passed"), seconds=seconds)


def _write(path: Path, text: str) -> None:
    """Compiled code is compared by whole seconds and size, so that a quick change of equal size would be missed."""
    path.write_text(text)
    Path(cache_from_source(str(path))).unlink(missing_ok=True)


def _pytest(copy: Path, tests: Sequence[str], *, timeout_s: float) -> Ran:
    report = copy / "report.xml"
    report.unlink(missing_ok=True)
    command = ["setpriv", "--pdeathsig", "KILL", sys.executable, "-m", "pytest", "-q", "--no-header"]
    command += ["-p", "no:cacheprovider", f"--junitxml={report}", *tests]
    log = copy / "pytest.log"
    with log.open("w") as file:
        process = subprocess.Popen(
            command,
            cwd=copy,
            env=os.environ | {"PYTHONPATH": str(copy), "PACKHOUSE_TEST_CACHE": str(ROOT / ".cache")},
            stdout=file,
            stderr=subprocess.STDOUT,
        )
        try:
            status = process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return Ran(broken=f"took more than {timeout_s:.0f} s")
        finally:
            process.kill()
            process.wait()
    if status not in (0, 1) or not report.exists():
        return Ran(broken=f"pytest ended with status {status}: {' '.join(log.read_text().split())[-400:]}")
    return _read(report)


def _read(report: Path) -> Ran:
    ran = Ran()
    for case in ET.parse(report).iter("testcase"):
        test = _named(case.get("classname", ""), case.get("name", ""))
        if (failure := case.find("failure")) is not None:
            ran.failed.setdefault(test, " ".join(failure.get("message", "").split())[:300])
        elif (error := case.find("error")) is not None:
            ran.broken = ran.broken or f"{test}: {' '.join(error.get('message', '').split())[:300]}"
        elif (skipped := case.find("skipped")) is not None:
            ran.skipped.setdefault(test, skipped.get("message", ""))
        else:
            ran.passed.add(test)
    return ran


def _named(classname: str, name: str) -> str:
    """`tests.packhouse.parity.test_judge` and `test_x[case]` -> `tests/packhouse/parity/test_judge.py::test_x`."""
    parts = classname.split(".")
    module = next(place for place, part in enumerate(parts) if part.startswith("test_"))
    path = "/".join(parts[: module + 1]) + ".py"
    return "::".join((path, *parts[module + 1 :], name.partition("[")[0]))


def _function(test: str) -> str:
    return test.partition("[")[0]


def _show(outcomes: Sequence[Outcome]) -> None:
    print("| fault | module | promise | caught by | by |\n|---|---|---|---|---|")
    for outcome in outcomes:
        row = outcome.mutant
        by = f"`{outcome.caught_by}`" if outcome.caught_by else "**not caught**"
        words = outcome.words.replace("|", "/")[:SHOWN]
        print(f"| {row.id} | {row.file} | {row.promise} | {by} | {words} |")
    caught = sum(bool(outcome.caught_by) for outcome in outcomes)
    print(f"\n{caught} of {len(outcomes)} faults were caught.")


def _said(words: str) -> int:
    print(words, file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
