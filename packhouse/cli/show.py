"""`packhouse show` and `packhouse ls`: what a release holds, and which there are."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import Annotated

import typer
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from rich.text import Text

from packhouse.cli.options import (
    ReleaseArgument,
    StoreOption,
    resolve,
    talk,
    the_store,
)
from packhouse.errors import ReleaseInvalid, printable
from packhouse.parity.latency import TIMING_HEADINGS, timing_cells
from packhouse.release.lookup import listing, read_manifest
from packhouse.release.manifest import REPORT_JSON, load
from packhouse.report.model import HEADINGS, Report, cautions, cells, reads, size

NAMED = 5
"""Keys that fit nowhere of which `ls` says the name."""


def show(
    release: ReleaseArgument,
    store: StoreOption = "",
    as_json: Annotated[bool, typer.Option("--json", help="The report as JSON.")] = False,
    latency: Annotated[
        bool, typer.Option("--latency", help="Instead, every latency by format, batch size and threads.")
    ] = False,
) -> None:
    """Show a release's report: formats, sizes, latency, parity, accuracy, verdicts."""
    found = resolve(release, store)
    data = found.document(REPORT_JSON)
    report = load(Report, data, where=REPORT_JSON)
    manifest = read_manifest(found, found.record)
    if (report.model, report.release) != (manifest.model, manifest.release):
        raise ReleaseInvalid("PH-0126 is of another release", where=REPORT_JSON, got=f"{report.model}/{report.release}")
    if as_json:
        sys.stdout.write(data.decode())
        return
    if latency:
        print_latency(report)
        return
    print_report(report)
    for artifact in manifest.artifacts:
        print(f"{artifact.digest.removeprefix('sha256:')}  {artifact.name}  {size(artifact.size)}")
    if image := found.record.image:
        print(image.reference)


def ls(
    model: Annotated[str, typer.Argument(help="Only this model's releases.")] = "",
    store: StoreOption = "",
) -> None:
    """List releases, one a line: model/release, the channels that point at it, and whether it is held or was deleted.
    What is nobody's is named on stderr."""
    found = listing(the_store(store), model)
    entries = sorted((*found.releases, *found.deleted), key=lambda entry: (entry.model, entry.release))
    for entry in entries:
        print(entry.words)
    for key in found.strange[:NAMED]:
        talk.print(printable(f"{key}: is nobody's, and is left alone"), markup=False)
    if (more := len(found.strange) - NAMED) > 0:
        talk.print(f"and {more} more that are nobody's")
    if not entries:
        talk.print(f"no releases{f' of {model}' if model else ''} in {the_store(store).url}")
        raise typer.Exit(3)


def print_report(report: Report) -> None:
    print_table(f"{report.model} {report.release}", HEADINGS, map(cells, report.rows))
    for row in report.rows:
        if row.onnx:
            print(f"{row.format}: {reads(row.onnx)}")


def print_latency(report: Report) -> None:
    title = f"{report.model} {report.release} on {report.processor}"
    print_table(title, TIMING_HEADINGS, map(timing_cells, report.latency))
    for line in cautions(report):
        talk.print(printable(line), markup=False)


def print_table(title: str, headings: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    table = Table(*headings, title=Text(printable(title)), title_justify="left", box=SIMPLE, padding=(0, 1, 0, 0))
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    Console(width=None if sys.stdout.isatty() else 120).print(table)
