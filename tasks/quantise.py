"""Quantise: makes an INT8 format. It ships only if the judge and the clock find that it pays."""

from __future__ import annotations

from packhouse.artifact import Outcome
from packhouse.formats.table import row
from tasks._support.states import Candidate, Judged, LeftOut, Validated
from tasks.export import convert, export, left_out


def quantise(gated: Validated, format: str, base: Judged | LeftOut) -> Candidate | LeftOut:
    """base: the fp32 format that it is made from, or else is compared with."""
    if isinstance(base, LeftOut):
        return left_out(format, "made", Outcome.NOT_RUN, f"there is no {base.format} to quantise (PH-0613)")
    return convert(gated, format, base) if row(format).made_from else export(gated, format)
