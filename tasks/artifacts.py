"""Artifacts: what an operator sees on a model's run in the Prefect UI."""

from __future__ import annotations

from prefect.artifacts import create_markdown_artifact, create_table_artifact

from packhouse.latency import TIMING_HEADINGS, timing_cells
from packhouse.report import Report, markdown
from tasks.stage import stage
from tasks.states import Packed


@stage("show")
def show(report: Report, packed: Packed) -> None:
    """The report as a page, every verdict as a table, every latency as a table."""
    model, name = report.model, f"{report.model}/{report.release}"
    create_markdown_artifact(markdown(report), key=f"{model}-report", description=name)
    parity = [
        {
            "check": verdict.check,
            "of": verdict.subject,
            "outcome": verdict.outcome.value,
            "reason": verdict.reason,
            "compared": ", ".join(digest.removeprefix("sha256:")[:12] for digest in verdict.compared),
        }
        for verdict in packed.manifest.verdicts
    ]
    create_table_artifact(parity, key=f"{model}-parity", description=name)
    latency = [dict(zip(TIMING_HEADINGS, timing_cells(timing), strict=True)) for timing in report.latency]
    create_table_artifact(latency, key=f"{model}-latency", description=f"{name} on {report.processor}")
