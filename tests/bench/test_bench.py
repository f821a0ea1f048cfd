"""Every bench runs, and gives its table, at the smallest size that it has: `--smallest`. No figure is judged here."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from tests.conftest import ROOT

BENCH = ROOT / "bench"
NO_PROGRAMS = {"api", "append_image", "bare", "cluster", "one_release", "plain_line", "process"}
"""Parts of the other programs."""

FIGURE = r"[+-]?\d[\d,]*(\.\d+)?(e[+-]\d+)?%?"
TIMEOUT_S, AT_ONCE = 300, 2


@dataclass(frozen=True)
class Bench:
    """needs: programs that its machine must have. arguments: what it is given besides `--smallest`."""

    name: str
    arguments: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()


BENCHES = [
    Bench("fetch"),
    Bench("fleet"),
    Bench("formats"),
    Bench("frozen"),
    Bench("images", needs=("dockerd", "docker-registry", "debootstrap")),
    Bench("large"),
    Bench("line"),
    Bench("onnxruntimes"),
    Bench("parity_cuda", arguments=("--device", "cpu")),
    Bench("peers"),
    Bench("serving", arguments=("--merge", "4"), needs=("wrk",)),
]
Output = Callable[[str], str]


@pytest.fixture(scope="module")
def output(api: str, request: pytest.FixtureRequest) -> Iterator[Output]:
    """What a bench printed. Two of those that this session asks for run at a time."""
    environment = os.environ | {
        "PACKHOUSE_BENCH_API": api,
        "PACKHOUSE_LATENCY_S": "0.05",
        "OMP_NUM_THREADS": "1",
    }
    asked = {item.name for item in request.session.items if item.path == request.path}
    with ThreadPoolExecutor(AT_ONCE) as pool:
        running = {
            bench.name: pool.submit(_run, bench, environment)
            for bench in BENCHES
            if f"test_{bench.name}" in asked and not _missing(bench)
        }

        def of(name: str) -> str:
            bench = next(bench for bench in BENCHES if bench.name == name)
            if missing := _missing(bench):
                pytest.skip(f"NOT RUN: bench.{name} needs {', '.join(missing)}")
            return _finished(bench, running[name])

        yield of


def _missing(bench: Bench) -> list[str]:
    root = ["root"] if "dockerd" in bench.needs and os.geteuid() != 0 else []
    return [*(program for program in bench.needs if shutil.which(program) is None), *root]


def _run(bench: Bench, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", f"bench.{bench.name}", "--smallest", *bench.arguments]
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=TIMEOUT_S
    )


def _finished(bench: Bench, run: Future[subprocess.CompletedProcess[str]]) -> str:
    done = run.result()
    assert done.returncode == 0, f"bench.{bench.name}: {done.stdout[-1000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def table(printed: str, first: str) -> list[list[str]]:
    """The rows below the head that begins with `first`, each with as many cells as the head."""
    lines = printed.splitlines()
    head = next(place for place, line in enumerate(lines) if line.startswith(f"| {first} |"))
    rows = []
    for line in lines[head + 2 :]:
        if not line.startswith("|"):
            break
        assert line.count("|") == lines[head].count("|"), line
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows


def figures(cells: list[str]) -> bool:
    return all(re.fullmatch(FIGURE, cell) for cell in cells)


def test_every_program_of_the_folder_is_run_here():
    programs = {path.stem for path in BENCH.glob("*.py")} - NO_PROGRAMS
    programs |= {path.parent.name for path in BENCH.glob("*/__main__.py")}
    assert programs == {bench.name for bench in BENCHES}


def test_fetch(output):
    rows = table(output("fetch"), "what")
    assert [row[0] for row in rows] == [
        "fetch, folder",
        "fetch, S3 (moto)",
        "sign",
        "check a signature, and every digest",
    ]
    assert all(figures([cell for cell in row[1:] if cell]) for row in rows)


def test_fleet(output):
    """Without its cluster, whose start alone takes most of a minute; tests/infra/deploy/test_local.py starts it."""
    printed = output("fleet")
    (night,) = table(printed, "models, all unchanged")
    assert night[0] == "2"
    assert figures(night)
    released = table(printed, "a released model, least of 1 rounds")
    assert [row[0] for row in released] == ["CPU s of the worker's process", "wall s"]
    assert all(figures(row[1:]) for row in released)
    assert "NOT RUN: the cluster" in printed


def test_formats(output):
    rows = table(output("formats"), "model")
    assert [(row[0], row[1].partition(":")[0]) for row in rows] == [
        ("digits-mlp", "packhouse"),
        ("digits-mlp", "onnxruntime"),
    ]
    assert all(figures(row[2:9]) for row in rows)


def test_frozen(output):
    (row,) = table(output("frozen"), "model")
    assert row[0] == "table, 16 features"
    assert figures(row[1:])


def test_images(output):
    printed = output("images")
    (row,) = table(printed, "model MB")
    assert figures(row)
    assert "2 images of 10 MB by append" in printed
    assert "Peak memory of a process that appends 1 MB" in printed


def test_large(output):
    printed = output("large")
    assert [line.partition(":")[0] for line in printed.splitlines()[:3]] == ["stage", "release", "verify"]
    assert re.search(r"^model\.onnx: [\d,]+ bytes$", printed, re.MULTILINE)
    assert "'format': 'onnx-int8'" in printed


def test_line(output):
    (row,) = table(output("line"), "model")
    assert row[0] == "tumour-table"
    assert figures(row[1:])


def test_onnxruntimes(output):
    assert re.match(r"onnxruntime [\d.]+: opset \d+ ml \d+ ir \d+", output("onnxruntimes"))


def test_parity_cuda(output):
    """On the CPU: that the script works, and nothing of a GPU."""
    rows = table(output("parity_cuda"), "model")
    assert [row[:2] for row in rows] == [["tumour-table", subject] for subject in ("torch", "torchscript", "onnx")]
    assert all(row[2:4] == ["pass", "pass"] for row in rows)


def test_peers(output):
    """packhouse alone: the others are installed from a package index, which takes minutes."""
    printed = output("peers")
    assert table(printed, "planted") == [["none: the healthy twin", "shipped"], ["sign turned", "refused"]]
    assert "NOT RUN: the peers" in printed


def test_serving(output):
    rows = table(output("serving"), "model")
    assert [(row[0], row[5]) for row in rows] == [("tiny-mlp", "each alone"), ("tiny-mlp", "merged up to 4")]
    assert all(figures([*row[2:5], *row[6:]]) for row in rows)
