"""Judge: does a format compute what the trained model computes, and is INT8 good and small enough?"""

from __future__ import annotations

from typing import Any

from infra.worker.context import worker_context
from packhouse.artifact import Outcome, Verdict
from packhouse.errors import Refused
from packhouse.formats.table import row
from packhouse.parity.preflight import FROZEN_BY_A_TRACE, explained
from packhouse.release.manifest import PARITY
from tasks._support.pipeline_task import one_line
from tasks._support.states import Candidate, Judged, LeftOut, Referenced, Validated
from tasks.export import digested, left_out


def judge(gated: Validated, referenced: Referenced, candidate: Candidate | LeftOut) -> Judged | LeftOut:
    """The format runs in a child, on the CPU, on every probe and evaluation sample. Its own failure is a refusal with
    its reason."""
    if isinstance(candidate, LeftOut):
        return candidate
    with one_line(gated.planned.model, f"compare {candidate.format}") as line:
        reason, measures = _ask(gated, referenced, candidate)
        if _is_traced(candidate):
            reason = explained(reason, referenced.findings, FROZEN_BY_A_TRACE)
        line.note(reason or "pass")
    if reason:
        return left_out(candidate.format, PARITY, Outcome.REFUSED, reason, made=candidate)
    verdict = Verdict(
        check=PARITY,
        subject=str(candidate.format),
        outcome=Outcome.PASS,
        compared=(
            *(file.digest for file in candidate.files),
            gated.weights.digest,
            referenced.cases.digest,
            referenced.evaluation.digest,
        ),
    )
    return Judged(candidate=candidate, verdict=verdict, measures=measures)


def _is_traced(candidate: Candidate) -> bool:
    """Of what script made, branches and loops are still there; INT8 and what is made from another format differ from
    that, and not from the model."""
    made = row(candidate.format)
    how = (candidate.facts.get("method"), candidate.facts.get("exporter"))
    return "script" not in how and not made.int8 and made.made_from is None


def _ask(gated: Validated, referenced: Referenced, candidate: Candidate) -> tuple[str, dict[str, Any]]:
    try:
        answer, _ = worker_context().run(
            "tasks.jobs.judge:run",
            {
                "spec": gated.spec_file,
                "samples": gated.samples,
                "format": str(candidate.format),
                "model": candidate.whole,
                "cases": referenced.cases,
                "evaluation": referenced.evaluation,
            },
        )
    except Refused as error:
        return digested(error), {}
    return str(answer.document["refusal"]), answer.document
