"""The report as one HTML file: no script, nothing from elsewhere, readable in light and dark.

Names, reasons and notes are foreign words: all text goes through `escape`, and the page forbids itself
to run or load anything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from html import escape

from packhouse.errors import printable
from packhouse.formats.table import ROWS, base_of, groups, is_int8, place
from packhouse.parity.latency import TIMING_HEADINGS, Timing, number, timing_cells
from packhouse.report import svg
from packhouse.report.model import (
    HEADINGS,
    TIMED,
    Report,
    Row,
    accuracy,
    cautions,
    cells,
    legend,
    lockdown,
    made,
    remarks,
    size,
    trap,
)
from packhouse.report.svg import Group, Ink, Mark

INKS = {name: Ink(colour, hollow=is_int8(name)) for colour, group in enumerate(groups(ROWS)) for name in group}
"""One colour a format, and its INT8 is the hollow one."""
OTHER = Ink(len(groups(ROWS)))
"""Of formats that this version does not know."""

UNITS = ((1024**3, " GiB"), (1024**2, " MiB"), (1024, " KiB"), (1, " B"))
KEY = (
    "Dot: p50, the median. Whiskers: to p95 and p99, where there are calls enough. Hollow: INT8. "
    "The scale is logarithmic."
)


def html(report: Report) -> str:
    """The whole page."""
    body = [
        f"<h1>{_text(report.model)} <small>{_text(report.release)}</small></h1>",
        f"<p>From <code>{_text(report.source)}</code>, {_text(made(report))} {_text(accuracy(report))}</p>",
        _table(HEADINGS, map(cells, report.rows)),
        f'<p class="note">{_text(legend(report))}</p>',
        *_listed("", cautions(report)),
        *_figures(report),
        *_latency(report),
        *_listed("Preflight", map(trap, report.preflight)),
        *_listed("Notes", [*remarks(report), lockdown(report)]),
    ]
    head = f'<meta charset="utf-8">{POLICY}{VIEWPORT}<title>{_text(report.model)} {_text(report.release)}</title>'
    return f'<!doctype html>\n<html lang="en"><head>{head}<style>{STYLE}</style></head>\n<body><main>\n' + (
        "\n".join(body) + "\n</main></body></html>\n"
    )


def _figures(report: Report) -> list[str]:
    """Latency, one picture a number of threads; then what INT8 gains, and the sizes."""
    by_threads = [
        [timing for timing in report.latency if timing.threads == threads]
        for threads in sorted({timing.threads for timing in report.latency})
    ]
    return [*map(_latency_figure, by_threads), *_speed_figure(report), *_size_figure(report)]


def _latency_figure(timings: Sequence[Timing]) -> str:
    threads = timings[0].threads
    title = f"Latency on {threads} thread{'s' if threads > 1 else ''}"
    return _figure(title, svg.dots(title, _by_batch(timings, _latency_mark), "ms"), KEY)


def _speed_figure(report: Report) -> list[str]:
    timings = [timing for timing in report.latency if is_int8(timing.format) and timing.speed is not None]
    if not timings:
        return []
    title = "Speed of INT8"
    words = "CPU time of the fp32 format / of INT8, on one thread. The line is at 1: right of it INT8 is faster."
    return [_figure(title, svg.bars(title, _by_batch(timings, _speed_mark), "x", line=1.0), words)]


def _size_figure(report: Report) -> list[str]:
    rows = sorted((row for row in report.rows if row.size is not None), key=_beside_its_base)
    if not rows:
        return []
    most = max(row.size or 0 for row in rows)
    scale, unit = next((scale, unit) for scale, unit in UNITS if scale <= most or scale == 1)
    marks = tuple(Mark(str(row.format), (row.size or 0) / scale, size(row.size), _ink(row.format)) for row in rows)
    words = f"The weights alone: {size(report.weights_bytes)}."
    return [_figure("Size", svg.bars("Size", [Group("", marks)], unit), words)]


def _by_batch(timings: Sequence[Timing], mark: Callable[[Timing], Mark]) -> list[Group]:
    batches = list(dict.fromkeys(timing.batch for timing in timings))
    return [
        Group(
            "one sample" if batch is None else f"batch {batch}",
            tuple(mark(timing) for timing in sorted(timings, key=_beside_its_base) if timing.batch == batch),
        )
        for batch in batches
    ]


def _beside_its_base(entry: Timing | Row) -> tuple[int, str, bool]:
    return *place(base_of(entry.format)), is_int8(entry.format)


def _ink(format: str) -> Ink:
    return INKS.get(format, OTHER)


def _latency_mark(timing: Timing) -> Mark:
    beyond = tuple(ms for ms in (timing.p95_ms, timing.p99_ms) if ms is not None)
    return Mark(str(timing.format), timing.p50_ms, f"{number(timing.p50_ms)} ms", _ink(timing.format), beyond)


def _speed_mark(timing: Timing) -> Mark:
    return Mark(str(timing.format), timing.speed or 0.0, number(timing.speed, "x"), _ink(timing.format))


def _latency(report: Report) -> list[str]:
    if not report.latency:
        return []
    return [
        "<h2>Latency</h2>",
        f"<p>On {_text(report.processor)}.</p>",
        _table(TIMING_HEADINGS, map(timing_cells, report.latency)),
        f'<p class="note">{_text(TIMED)}</p>',
    ]


def _figure(title: str, picture: str, words: str) -> str:
    return f"<figure><h2>{_text(title)}</h2>{picture}<figcaption>{_text(words)}</figcaption></figure>"


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    head = "".join(f"<th>{_text(heading)}</th>" for heading in headings)
    lines = ["<tr>" + "".join(f"<td>{_text(cell)}</td>" for cell in row) + "</tr>" for row in rows]
    return (
        f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>\n'
        + "\n".join(lines)
        + ("\n</tbody></table></div>")
    )


def _listed(title: str, lines: Iterable[str]) -> list[str]:
    """A list, where there is something to say."""
    entries = "".join(f"<li>{_text(line)}</li>" for line in lines)
    heading = f"<h2>{_text(title)}</h2>" if title else ""
    return [f"{heading}<ul>{entries}</ul>"] if entries else []


def _text(words: str) -> str:
    return escape(printable(words))


POLICY = "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
VIEWPORT = '<meta name="viewport" content="width=device-width">'
STYLE = """
:root { color-scheme: light dark; --paper: #fff; --text: #1c2024; --quiet: #60646c; --grid: #e4e6ea; --mark: #80838d;
  --c0: #2a6fdb; --c1: #d9601a; --c2: #14875a; --c3: #8250c4; }
@media (prefers-color-scheme: dark) { :root { --paper: #17191c; --text: #e8eaed; --quiet: #a2a7b0; --grid: #31353b;
  --mark: #878d98; --c0: #78aeff; --c1: #ff9d62; --c2: #4fd1a1; --c3: #c3a2f5; } }
body { margin: 0; background: var(--paper); color: var(--text); font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 960px; margin: 0 auto; padding: 24px 16px 48px; }
h1 { font-size: 24px; margin: 0 0 8px; overflow-wrap: anywhere; }
h1 small { font: 13px ui-monospace, monospace; color: var(--quiet); }
h2 { font-size: 17px; margin: 32px 0 8px; }
p, li { overflow-wrap: anywhere; }
.note, figcaption { color: var(--quiet); font-size: 13px; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 14px; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: 5px 14px 5px 0; border-bottom: 1px solid var(--grid); vertical-align: top; }
td:not(:last-child) { white-space: nowrap; }
th { color: var(--quiet); font-weight: 500; white-space: nowrap; }
figure { margin: 0; }
svg { display: block; width: 100%; max-width: 820px; height: auto; font-size: 12px; }
svg text { fill: var(--text); }
svg .group { font-weight: 600; }
svg .quiet { fill: var(--quiet); font-size: 11px; }
svg line { stroke-width: 1.6; }
svg .grid { stroke: var(--grid); stroke-width: 1; }
svg .mark { stroke: var(--mark); stroke-dasharray: 4 3; }
svg .c0 { stroke: var(--c0); fill: var(--c0); }
svg .c1 { stroke: var(--c1); fill: var(--c1); }
svg .c2 { stroke: var(--c2); fill: var(--c2); }
svg .c3 { stroke: var(--c3); fill: var(--c3); }
svg circle.hollow, svg rect.hollow { fill: var(--paper); stroke-width: 2; }
""".replace("\n", " ")
