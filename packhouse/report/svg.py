"""Pictures as inline SVG: bars, and dots with whiskers. Pure; every text is escaped; colours come from the page's CSS.

Classes: `c0`, `c1`, ... the colours, `hollow` a variant of one; lines are `grid` or `mark`, texts `group`,
`label` or `quiet`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, LEFT, RIGHT = 720, 150, 110
ROW, GAP, TOP, FOOT = 22, 8, 8, 24


@dataclass(frozen=True)
class Ink:
    """colour: the number of the class. hollow: a variant of what has the same colour."""

    colour: int
    hollow: bool = False

    @property
    def classes(self) -> str:
        return f"c{self.colour} hollow" if self.hollow else f"c{self.colour}"


@dataclass(frozen=True)
class Mark:
    """One row. at: where its dot or the end of its bar is. beyond: ends of its whiskers, each at least `at`."""

    label: str
    at: float
    text: str
    ink: Ink
    beyond: tuple[float, ...] = ()


@dataclass(frozen=True)
class Group:
    """Rows below a title of their own; none where it is empty."""

    title: str
    marks: tuple[Mark, ...]


def dots(title: str, groups: Sequence[Group], unit: str) -> str:
    """On a logarithmic axis, so that a tenth and a hundred can both be read."""
    values = [max(value, 1e-9) for group in groups for mark in group.marks for value in (mark.at, *mark.beyond)]
    ticks = log_ticks(min(values), max(values))
    low, high = math.log10(ticks[0]), math.log10(ticks[-1])

    def x(value: float) -> float:
        return _across((math.log10(max(value, 1e-9)) - low) / (high - low))

    def draw(mark: Mark, y: float) -> str:
        ends = "".join(_line(x(end), y - 4, x(end), y + 4, mark.ink.classes) for end in mark.beyond)
        reach = _line(x(mark.at), y, x(max(mark.beyond)), y, mark.ink.classes) if mark.beyond else ""
        return f'{reach}{ends}<circle class="{mark.ink.classes}" cx="{x(mark.at):.1f}" cy="{y:.1f}" r="4.5"/>'

    return _drawn(title, groups, [(x(tick), f"{tick:g} {unit}") for tick in ticks], draw)


def bars(title: str, groups: Sequence[Group], unit: str, *, line: float | None = None) -> str:
    """From zero. line: a value to compare with, drawn through all rows."""
    most = max([mark.at for group in groups for mark in group.marks] + [line or 0.0])
    ticks = linear_ticks(most)

    def x(value: float) -> float:
        return _across(value / ticks[-1])

    def draw(mark: Mark, y: float) -> str:
        width = max(x(mark.at) - LEFT, 1.0)
        return f'<rect class="{mark.ink.classes}" x="{LEFT}" y="{y - 6:.1f}" width="{width:.1f}" height="12" rx="2"/>'

    marked = [] if line is None else [x(line)]
    return _drawn(title, groups, [(x(tick), f"{tick:g}{unit}") for tick in ticks], draw, marked)


def log_ticks(low: float, high: float) -> list[float]:
    """1, 2, 5, 10, ... from the one at or below `low` to the one at or above `high`, two at least; decades where these
    would be many."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    steps = (1, 2, 5) if math.log10(high / low) < 2 else (1,)
    every = [float(f"{step}e{power}") for power in range(first, last + 2) for step in steps]
    start = max(place for place, tick in enumerate(every) if tick <= low * (1 + 1e-9))
    end = min(place for place, tick in enumerate(every) if tick >= high * (1 - 1e-9) and place > start)
    return every[start : end + 1]


def linear_ticks(most: float) -> list[float]:
    """From 0 in steps of 1, 2 or 5 times a power of ten, at most six, to the first at or above `most`."""
    if most < 1e-9:
        return [0.0, 1.0]
    rough = most / 5
    power = math.floor(math.log10(rough))
    step = next(s for s in (float(f"{n}e{power}") for n in (1, 2, 5, 10)) if s >= rough * (1 - 1e-9))
    return [float(f"{step * count:.12g}") for count in range(math.ceil(most / step - 1e-9) + 1)]


def _drawn(
    title: str,
    groups: Sequence[Group],
    ticks: Sequence[tuple[float, str]],
    draw: Callable[[Mark, float], str],
    lines: Sequence[float] = (),
) -> str:
    """ticks: place and text. draw: one mark at a height. lines: places to compare with."""
    parts: list[str] = []
    y = TOP + ROW / 2
    for group in groups:
        if group.title:
            y += GAP if parts else 0
            parts.append(_text(0, y + 4, group.title, "group"))
            y += ROW
        for mark in group.marks:
            parts.append(_text(LEFT - 10, y + 4, mark.label, "label", "end"))
            parts.append(draw(mark, y))
            parts.append(_text(WIDTH, y + 4, mark.text, "label", "end"))
            y += ROW
    bottom = y - ROW / 2 + 2
    below = [_line(x, TOP, x, bottom, "grid") for x, _ in ticks]
    below += [_text(x, bottom + 15, text, "quiet", "middle") for x, text in ticks]
    above = [_line(x, TOP, x, bottom, "mark") for x in lines]
    return (
        f'<svg viewBox="0 0 {WIDTH} {bottom + FOOT:.0f}" role="img"><title>{escape(title)}</title>'
        f"{''.join([*below, *parts, *above])}</svg>"
    )


def _across(part: float) -> float:
    return LEFT + part * (WIDTH - LEFT - RIGHT)


def _line(x1: float, y1: float, x2: float, y2: float, classes: str) -> str:
    return f'<line class="{classes}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _text(x: float, y: float, words: str, classes: str, anchor: str = "start") -> str:
    return f'<text class="{classes}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'
