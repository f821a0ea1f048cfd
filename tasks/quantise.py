"""Quantise: makes an INT8 format. It ships only if the judge and the clock find that it pays."""

from __future__ import annotations

from packhouse.artifact import Outcome
from packhouse.formats.table import Format, row
from tasks._support.states import Candidate, Gated, Judged, LeftOut
from tasks.export import left_out, make


def quantise(gated: Gated, format: Format, base: Judged | LeftOut) -> Candidate | LeftOut:
    """base: the fp32 format that it is made from (ONNX) and measured against."""
    if isinstance(base, LeftOut):
        return left_out(format, "made", Outcome.NOT_RUN, f"there is no {base.format} to quantise (PH-0613)")
    if row(format).made_from:
        return make(gated, format, {"spec": gated.spec_file, "samples": gated.samples, "model": base.candidate.whole})
    return make(gated, format, gated.trained)
