"""Tonight: what a night did, as a page and as a table on its run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from prefect.artifacts import create_markdown_artifact, create_table_artifact

from packhouse.report.model import size
from tasks._support.pipeline_task import pipeline_task
from tasks.night.plan import Night

ROWS = 1000
"""Of the table artifact: what the UI shows without effort. Bad ends come first."""


@pipeline_task("show night")
def show_night(planned: Night, ends: Sequence[dict[str, Any]], seconds: float) -> None:
    """ends: of every model that was to be released, as plain documents of flows.run_result.End."""
    rows = sorted((_row(end) for end in ends), key=lambda row: (row["outcome"] == "released", row["model"]))
    create_table_artifact(rows[:ROWS], key="night", description=f"{len(rows)} models that changed or are bad")
    create_markdown_artifact(_page(planned, ends, rows, seconds), key="night-report")


def _row(end: dict[str, Any]) -> dict[str, Any]:
    return {
        "model": end["model"] or end["source"],
        "outcome": end["status"],
        "release": end["release"],
        "why": end["reason"],
        "seconds": round(end["seconds"], 1),
        "bytes": end["size"],
        "source": end["source"],
    }


def _page(planned: Night, ends: Sequence[dict[str, Any]], rows: Sequence[dict[str, Any]], seconds: float) -> str:
    counts = Counter(str(end["status"]) for end in ends)
    counts["unchanged"] += planned.unchanged
    total = sum(counts.values())
    lines = [
        f"# {total:,} models in {seconds:,.1f} s",
        "",
        *(f"- {count:,} {status}" for status, count in sorted(counts.items())),
        f"- {planned.older:,} older sources of the same models, not looked at",
        f"- {size(sum(end['size'] for end in ends))} published",
    ]
    for title, status in (
        ("Refused", "refused"),
        ("Failed", "failed"),
        ("Unavailable", "unavailable"),
        ("Cancelled", "cancelled"),
    ):
        if named := [row for row in rows if row["outcome"] == status]:
            lines += ["", f"## {title}", "", *(f"- **{row['model']}**: {row['why']}" for row in named)]
    if waiting := [row for row in rows if row["outcome"] == "waiting"]:
        lines += ["", "## Waiting for a person", "", *(f"- **{row['model']}** {row['release']}" for row in waiting)]
    if made := [row for row in rows if row["outcome"] == "released"]:
        lines += ["", "## Released", "", *(f"- {row['model']}/{row['release']}" for row in made)]
    return "\n".join(lines) + "\n"
