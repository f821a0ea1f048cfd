"""Package: the manifest over everything that passed, and the report of what was measured on the way."""

from __future__ import annotations

import time

from packhouse.report.model import Report
from tasks._support.pipeline_task import pipeline_task
from tasks._support.states import Judged, LeftOut, Measured, Packed, Referenced, Validated
from tasks.cuda.cuda_batch import Cuda
from tasks.pack import pack
from tasks.report import report


@pipeline_task("package")
def package(
    gated: Validated,
    referenced: Referenced,
    measured: Measured,
    judged: list[Judged],
    left_out: list[LeftOut],
    *,
    cuda: Cuda,
    started: float,
) -> tuple[Packed, Report]:
    """The release's documents, whose files are in the local cache.

    Args:
        gated: The trained model.
        referenced: Its own outputs.
        measured: How long a call of each format takes.
        judged: The formats that are released.
        left_out: The others, with their reasons.
        cuda: What the GPU worker found.
        started: When the run of this model began, by time.monotonic().

    Raises:
        ParityRefused: A format that the spec requires is left out, or none is left.
    """
    packed = pack(gated, referenced, judged, left_out, cuda=cuda.verdicts)
    return packed, report(gated, referenced, measured, packed, time.monotonic() - started, cuda=cuda)
