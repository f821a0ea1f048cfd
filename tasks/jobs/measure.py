"""Latency: formats of one runtime side by side, interleaved, at several batch sizes and thread counts."""

from __future__ import annotations

import gc
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from packhouse.formats.arrays import Array
from packhouse.formats.runtime import Runner, as_text, open_format
from packhouse.formats.table import base_of, row
from packhouse.parity.latency import Timing
from packhouse.parity.probes import read_samples
from packhouse.spec.model import Spec, parse
from tasks.jobs.latency import (
    Limits,
    Stint,
    batch_sizes,
    expected_s,
    inputs_of,
    percentile,
    thread_counts,
    usable_processors,
)

Call = Callable[[], object]


def run(*, spec: str, samples: str, models: dict[str, str], seconds: float) -> dict[str, Any]:
    """models: format -> file. seconds: see Limits. Runs each on the first evaluation samples.

    Returns {"timings": [Timing], "untimed": [such as "batch 32 on 2 threads"], "processor"}.
    """
    parsed, limits = parse(Path(spec).read_bytes()), Limits(seconds=seconds)
    opened = [Opened(name, Path(path), parsed) for name, path in models.items()]
    grid = Grid(parsed, read_samples(Path(samples)), opened, limits)
    gc.disable()  # a collection in one format's call would be another one's garbage
    timings = list(grid.timings(usable_processors()))
    return {
        "timings": [timing.model_dump(mode="json") for timing in timings],
        "untimed": grid.untimed,
        "processor": processor(),
    }


class Opened:
    """A format in its runtime, on one thread at first. opening_s: what opening it took."""

    def __init__(self, format: str, path: Path, spec: Spec) -> None:
        self.format, self._path = format, path
        self._outputs, self._text = [output.name for output in spec.outputs], spec.text
        self.runner: Runner | None = None
        started = time.perf_counter()
        self.use_threads(1)
        self.opening_s = time.perf_counter() - started

    def use_threads(self, threads: int) -> None:
        """A session of ONNX Runtime has its threads for good, so it is opened anew; torch's are the process's."""
        if self.runner is None or self.reopens:
            self.runner = None  # two sessions at a time would be twice the memory
            self.runner = open_format(self.format, self._path, outputs=self._outputs, text=self._text, threads=threads)
        else:
            import torch

            torch.set_num_threads(threads)

    @property
    def reopens(self) -> bool:
        return row(self.format).threads == "session"

    def call(self, inputs: Mapping[str, Array]) -> Call:
        runner = self.runner
        assert runner is not None
        ready = as_text(inputs, self._text) if row(self.format).text else inputs
        return lambda: runner(ready)


class Grid:
    """Times the formats at one place of the grid after the other, as long as there is time."""

    def __init__(self, spec: Spec, samples: Mapping[str, Array], opened: list[Opened], limits: Limits) -> None:
        self._opened, self._limits = opened, limits
        self._inputs = {batch: inputs_of(spec, samples, batch) for batch in batch_sizes(spec, samples, limits.batches)}
        self._left_s = limits.seconds * len(opened)
        self._seen: dict[int | None, float] = {}
        self.untimed: list[str] = []

    def timings(self, processors: int) -> Iterator[Timing]:
        """All sizes on one thread first: threads that were started once stay, and take time from the others."""
        for threads in thread_counts(processors, self._limits.threads):
            if threads > 1 and not self._more_threads(threads):
                self.untimed += (_place(batch, threads) for batch in self._inputs)
                continue
            for batch in self._inputs:
                if self._fits(batch):
                    yield from self._timed(batch, threads)
                else:
                    self.untimed.append(_place(batch, threads))

    def _more_threads(self, threads: int) -> bool:
        """False: to open the formats again and to time the smallest batch takes longer than what is left."""
        smallest = next(iter(self._inputs))
        opening_s = sum(opened.opening_s for opened in self._opened if opened.reopens)
        if not self._fits(smallest, opening_s):
            return False
        started = time.perf_counter()
        for opened in self._opened:
            opened.use_threads(threads)
        self._left_s -= time.perf_counter() - started
        return True

    def _fits(self, batch: int | None, before_s: float = 0.0) -> bool:
        calls = self._limits.rounds + self._limits.warm_up[0]
        wanted_s = before_s + expected_s(self._seen, batch) * calls
        return wanted_s <= max(self._left_s, self._limits.cell_s * len(self._opened)) or not self._seen

    def _timed(self, batch: int | None, threads: int) -> Iterator[Timing]:
        limits, started = self._limits, time.perf_counter()
        calls = {opened.format: opened.call(self._inputs[batch]) for opened in self._opened}
        blocks = {format: _calls_a_block(call, limits) for format, call in calls.items()}
        stint = limits.other(threads, min(blocks.values())) if self._seen else limits.smallest
        times = side_by_side(calls, blocks, stint)
        self._seen[batch] = sum(statistics.median(own.walls) for own in times.values())
        self._left_s -= time.perf_counter() - started
        for format, own in times.items():
            base = times.get(base_of(format)) if threads == 1 else None
            yield _timing(format, batch, threads, own, base)


@dataclass
class Times:
    """Of one format. walls: seconds of each call. cpu: CPU seconds a call, of each round."""

    walls: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    wall_s: float = 0.0
    cpu_s: float = 0.0

    def block(self, call: Call, times: int) -> None:
        """The CPU clock of the process, which sees all threads; its tick is too coarse for one fast call."""
        cpu, wall = time.process_time(), time.perf_counter()
        for _ in range(times):
            started = time.perf_counter()
            call()
            self.walls.append(time.perf_counter() - started)
        spent = time.process_time() - cpu
        self.cpu.append(max(spent / times, 1e-9))
        self.cpu_s += spent
        self.wall_s += time.perf_counter() - wall


def side_by_side(calls: Mapping[str, Call], blocks: Mapping[str, int], stint: Stint) -> dict[str, Times]:
    """Round by round, one block of each format: what disturbs the machine disturbs them alike. blocks: calls in one."""
    times = {format: Times() for format in calls}
    cpu, wall, done = time.process_time(), time.perf_counter(), 0
    while not stint.over(done, _each(cpu, time.process_time(), calls), _each(wall, time.perf_counter(), calls)):
        for format, call in calls.items():
            times[format].block(call, blocks[format])
        done += 1
    return times


def _each(began: float, now: float, calls: Mapping[str, Call]) -> float:
    return (now - began) / len(calls)


def _calls_a_block(call: Call, limits: Limits) -> int:
    """Also the warm-up: the first calls allocate, and TorchScript compiles in the second one. The quickest counts: a
    call that compiled or was disturbed says nothing about how fast the next will be; whether all were slow is asked of
    the CPU's clock."""
    warm, (least, most) = Times(), limits.warm_up
    while len(warm.walls) < least or (min(warm.cpu) < limits.block_s and len(warm.walls) < most):
        warm.block(call, 1)
    return max(1, round(limits.block_s / max(min(warm.walls), 1e-7)))


def _timing(format: str, batch: int | None, threads: int, times: Times, base: Times | None) -> Timing:
    p50 = statistics.median(times.walls)
    ms = [second * 1000 for second in times.walls]
    ratios = [theirs / own for theirs, own in zip(base.cpu, times.cpu, strict=True)] if base else []
    return Timing(
        format=format,
        batch=batch,
        threads=threads,
        calls=len(ms),
        p50_ms=p50 * 1000,
        p95_ms=percentile(ms, 95),
        p99_ms=percentile(ms, 99),
        items_per_s=(batch or 1) / max(p50, 1e-9),
        busy=times.cpu_s / times.wall_s,
        speed=statistics.median(ratios) if ratios else None,
    )


def _place(batch: int | None, threads: int) -> str:
    size = "one sample" if batch is None else f"batch {batch}"
    return f"{size} on {threads} thread{'s' if threads > 1 else ''}"


def processor() -> str:
    """The processor's own name, where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
