"""Latency: formats of one runtime side by side, interleaved, one thread."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from packhouse.cases import read_cases
from packhouse.runtime import as_text, open_format
from packhouse.spec import Format

ROUNDS = (9, 40)
BUDGET_S = 0.5
WARM_UP = 8
BLOCK_S = 0.002
"""In each round a format is called for about this long, so that its CPU time is more than a clock's tick."""


def run(*, models: dict[str, str], cases: str, outputs: list[str], text: dict[str, list[str]]) -> dict[str, Any]:
    """models: format -> file. Runs each on the first golden case (the smallest batch of real samples).

    Returns {"latency": {format: {"p50_ms", "p95_ms", "calls"}}, "speed": {format: x}, "processor", "case"}: wall
    milliseconds a call; speed: CPU time of the first format / that of this one, the median of the rounds' ratios.
    """
    case = read_cases(Path(cases))[0]
    calls = {}
    for name, path in models.items():
        runner = open_format(Format(name), Path(path), outputs=outputs, text=text, threads=1)
        inputs = as_text(case.inputs, text) if Format(name).base is Format.ONNX else case.inputs
        calls[name] = lambda runner=runner, inputs=inputs: runner(inputs)
    blocks = {name: _calls_a_block(call) for name, call in calls.items()}
    wall: dict[str, list[float]] = {name: [] for name in calls}
    cpu: dict[str, list[float]] = {name: [] for name in calls}
    started = time.perf_counter()
    for done in range(ROUNDS[1]):
        if done >= ROUNDS[0] and time.perf_counter() - started > BUDGET_S * len(calls):
            break
        for name, call in calls.items():
            walls, cpu_s = _timed(call, blocks[name])
            wall[name] += (seconds * 1000 for seconds in walls)
            cpu[name].append(cpu_s)
    first = next(iter(calls))
    return {
        "latency": {name: _summary(times) for name, times in wall.items()},
        "speed": {
            name: statistics.median(base / own for base, own in zip(cpu[first], cpu[name], strict=True))
            for name in calls
        },
        "processor": processor(),
        "case": case.name,
    }


def _calls_a_block(call: Callable[[], object]) -> int:
    """Also the warm-up: the first calls allocate, and runtimes specialise on them."""
    seconds, _ = _timed(call, 2)
    while seconds[-1] < BLOCK_S and len(seconds) < WARM_UP:
        seconds += _timed(call, 1)[0]
    return max(1, round(BLOCK_S / max(seconds[-1], 1e-7)))


def _timed(call: Callable[[], object], times: int) -> tuple[list[float], float]:
    """Wall seconds of each call, and CPU seconds a call. With one thread the runtimes compute in this thread, so its
    CPU clock sees all; its tick is too coarse for one fast call."""
    walls, cpu = [], time.thread_time()
    for _ in range(times):
        started = time.perf_counter()
        call()
        walls.append(time.perf_counter() - started)
    return walls, max((time.thread_time() - cpu) / times, 1e-9)


def _summary(times: list[float]) -> dict[str, Any]:
    return {
        "p50_ms": statistics.median(times),
        "p95_ms": statistics.quantiles(times, n=20, method="inclusive")[-1],
        "calls": len(times),
    }


def processor() -> str:
    """The processor's own name, where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
