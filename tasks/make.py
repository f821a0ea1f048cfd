"""Make: one format of the trained model, from the export to the proof that it computes the same."""

from __future__ import annotations

from typing import Protocol

from packhouse.formats.table import is_int8
from tasks._support.pipeline_task import pipeline_task
from tasks._support.states import Candidate, Judged, LeftOut, Referenced, Validated
from tasks.export import convert, export
from tasks.judge import judge
from tasks.pack import insist
from tasks.publish import upload
from tasks.quantise import quantise


class Awaited(Protocol):
    """The outputs of the reference run, which is under way while formats are exported."""

    def result(self) -> Referenced: ...


@pipeline_task("make", of="{format}")
def make_format(gated: Validated, format: str, base: Judged | LeftOut | None, reference: Awaited) -> Judged | LeftOut:
    """Exports or quantises, compares with the model, and uploads what passed.

    Args:
        gated: The trained model.
        format: The format to make.
        base: The format that it is made from, or that an INT8 format is compared with; else None.
        reference: Is waited for after the export.

    Raises:
        ParityRefused: The spec requires this format, and it is left out.
        Unavailable: The store does not take the file.
    """
    candidate = _made(gated, format, base)
    outcome = judge(gated, reference.result(), candidate)
    if isinstance(outcome, LeftOut):
        insist(gated.planned, [outcome])
    else:
        upload(gated, outcome)
    return outcome


def _made(gated: Validated, format: str, base: Judged | LeftOut | None) -> Candidate | LeftOut:
    if base is None:
        return export(gated, format)
    return quantise(gated, format, base) if is_int8(format) else convert(gated, format, base)
