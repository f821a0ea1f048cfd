"""What a tool's process says at its end, as JSON in a file: logs of all kinds go to stdout and stderr."""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from bench.peers.faults import NOT_PLANTED, plant
from bench.peers.given import Given

FILE = "answer.json"


@dataclass
class Answer:
    """refused: why the tool left no model; "" where it did. warned: what it said against the model that it left all
    the same. files: what it left, "onnx" and "int8" among them."""

    refused: str = ""
    warned: str = ""
    files: dict[str, str] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0


Work = Callable[[Given, Path], Answer]


def told(work: Work, given: Path, out: Path) -> None:
    """An error that comes out of the tool is a refusal: no script goes on behind it. seconds: without imports."""
    started = time.perf_counter()
    try:
        answer = work(Given(given), out)
    except Exception as error:  # how a tool refuses is what is asked here
        traceback.print_exc()
        answer = Answer(refused=f"{type(error).__name__}: {error}"[:500])
    answer.seconds = time.perf_counter() - started
    (out / FILE).write_text(json.dumps(asdict(answer)))


def main(work: Work, library: str, words: list[str]) -> None:
    """words: GIVEN OUT FAULT, and again; an empty FAULT is none. Several share the import of the library and have a
    forked process each."""
    jobs = [(Path(words[place]), Path(words[place + 1]), words[place + 2]) for place in range(0, len(words), 3)]
    if len(jobs) == 1:
        _one(work, *jobs[0])
        _end()
    importlib.import_module(library)
    for job in jobs:
        if not (child := os.fork()):
            _one(work, *job)
            _end()
        if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == NOT_PLANTED:
            sys.exit(NOT_PLANTED)


def _end() -> None:
    """At once: without a network, Olive's telemetry holds its process for ten seconds more, though it is turned off."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _one(work: Work, given: Path, out: Path, fault: str) -> None:
    out.mkdir(parents=True)
    if fault:
        plant(fault)
    told(work, given, out)


def read(out: Path) -> Answer | None:
    """None: the process died before it could say anything."""
    return Answer(**json.loads((out / FILE).read_text())) if (out / FILE).exists() else None
