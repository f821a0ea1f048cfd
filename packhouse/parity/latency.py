"""Latency: how long one call of a format takes, by batch size and number of threads. docs/latency.md says how."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Annotated

from pydantic import Field

from packhouse.artifact import Frozen
from packhouse.formats.table import Format, place
from packhouse.release.manifest import OpenFormat

Count = Annotated[int, Field(ge=1)]
Amount = Annotated[float, Field(ge=0)]


class Timing(Frozen):
    """One format at one batch size on one number of threads.

    batch: samples a call; None: the model has no batch axis, and a call takes one sample as it is. calls: behind each
    figure. p50_ms, p95_ms, p99_ms: wall milliseconds a call; None: too few calls lie beyond it for it to mean anything.
    items_per_s: samples a second, at the median. busy: processors that were at work for it, CPU seconds / wall seconds;
    with one thread, what is missing to 1 is what others took. speed: CPU time of the format's base / of this one, the
    median of the rounds' ratios; None with more threads, which wait for each other and burn time in it.
    """

    format: OpenFormat
    batch: Count | None
    threads: Count
    calls: Count
    p50_ms: Amount
    p95_ms: Amount | None = None
    p99_ms: Amount | None = None
    items_per_s: Amount
    busy: Amount
    speed: Amount | None = None


TIMING_HEADINGS = ("format", "batch", "threads", "p50 ms", "p95 ms", "p99 ms", "items/s", "speed", "busy", "calls")


def timing_cells(timing: Timing) -> tuple[str, ...]:
    """One row of the table for people, in the order of TIMING_HEADINGS."""
    return (
        str(timing.format),
        batch_name(timing.batch),
        str(timing.threads),
        number(timing.p50_ms),
        number(timing.p95_ms),
        number(timing.p99_ms),
        f"{timing.items_per_s:,.0f}" if timing.items_per_s >= 100 else number(timing.items_per_s),
        number(timing.speed, "x"),
        f"{timing.busy:.2f}",
        str(timing.calls),
    )


def in_order(timings: Iterable[Timing]) -> tuple[Timing, ...]:
    """By threads, then batch, then format: what is to be compared stands together."""
    return tuple(sorted(timings, key=lambda t: (t.threads, t.batch or 0, *place(t.format))))


def smallest(timings: Iterable[Timing]) -> dict[Format | str, Timing]:
    """Of each format the one of the smallest batch on one thread, which is always there."""
    first: dict[Format | str, Timing] = {}
    for timing in in_order(timings):
        first.setdefault(timing.format, timing)
    return first


def slowest(timings: Iterable[Timing]) -> dict[Format | str, float]:
    """Of each format its least speed over the batch sizes."""
    speeds: dict[Format | str, float] = {}
    for timing in timings:
        if timing.speed is not None:
            speeds[timing.format] = min(timing.speed, speeds.get(timing.format, timing.speed))
    return speeds


def typical(timings: Iterable[Timing]) -> dict[Format | str, float]:
    """Of each format the geometric mean of its speeds over the batch sizes: twice as fast at one size and half as fast
    at another is as fast."""
    logarithms: dict[Format | str, list[float]] = {}
    for timing in timings:
        if timing.speed:
            logarithms.setdefault(timing.format, []).append(math.log(timing.speed))
    return {format: math.exp(math.fsum(found) / len(found)) for format, found in logarithms.items()}


def batch_name(batch: int | None) -> str:
    return "as is" if batch is None else str(batch)


def number(value: float | None, unit: str = "") -> str:
    """Three digits that count; nothing for None."""
    return "" if value is None else f"{value:.3g}{unit}"
