"""Artifacts: what an operator sees on a model's run in the Prefect UI."""

from __future__ import annotations

from prefect.artifacts import create_markdown_artifact, create_table_artifact

from packhouse.parity.latency import TIMING_HEADINGS, timing_cells
from packhouse.report.model import Report, markdown
from tasks._support.states import Packed, Proven


def show(report: Report, packed: Packed, proven: Proven) -> None:
    """The report as a page, every verdict as a table, every latency as a table, and how the image came to be."""
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
        for verdict in (*packed.manifest.verdicts, *proven.record.verdicts)
    ]
    create_table_artifact(parity, key=f"{model}-parity", description=name)
    latency = [dict(zip(TIMING_HEADINGS, timing_cells(timing), strict=True)) for timing in report.latency]
    if image := proven.record.image:
        made = [{"fact": "image", "value": image.reference}, {"fact": "built on", "value": image.runtime}]
        made += [{"fact": fact, "value": str(value)} for fact, value in proven.facts.items()]
        create_table_artifact(made, key=f"{model}-image", description=name)
    create_table_artifact(latency, key=f"{model}-latency", description=f"{name} on {report.processor}")
