"""The line without an orchestrator: the same functions, called one after the other, exports on threads."""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor

from packhouse.artifact import Artifact
from packhouse.spec import Format
from tasks.canary import unserved
from tasks.commit import commit, promote
from tasks.export import export
from tasks.fetch import fetch
from tasks.gate import gate
from tasks.judge import judge
from tasks.measure import measure, pays
from tasks.pack import insist, pack
from tasks.parity_cuda import parity_cuda
from tasks.plan import plan
from tasks.publish import publish, upload
from tasks.quantise import quantise
from tasks.refer import refer
from tasks.report import report
from tasks.states import Candidate, Gated, Judged, LeftOut, Referenced, Released


def plain_line(source: str) -> Released:
    started = time.monotonic()
    planned = plan.fn(source)
    gated = gate.fn(fetch.fn(planned))
    wanted = planned.spec.formats.wanted
    with ThreadPoolExecutor(16) as pool:
        asked = pool.submit(refer.fn, gated)
        made: dict[Format, Future[Candidate | LeftOut]] = {
            format: pool.submit(export.fn, gated, format) for format in wanted if not format.int8
        }
        for format in (format for format in wanted if format.int8):
            made[format] = pool.submit(_quantised, gated, format, made[format.base])
        referenced = asked.result()
        verdicts = [pool.submit(_judged, gated, referenced, candidate) for candidate in made.values()]
        uploads = [pool.submit(_uploaded, gated, verdict) for verdict in verdicts]
        outcomes = [verdict.result() for verdict in verdicts]
        uploaded = [done.result() for done in uploads]
    judged = [outcome for outcome in outcomes if isinstance(outcome, Judged)]
    left_out = [outcome for outcome in outcomes if isinstance(outcome, LeftOut)]
    insist.fn(planned, left_out)
    measured = measure.fn(gated, judged)
    judged, too_slow = pays.fn(gated, judged, measured)
    cuda = parity_cuda.fn(gated, referenced, judged)
    packed = pack.fn(gated, referenced, judged, [*left_out, *too_slow], cuda=cuda.verdicts)
    summary = report.fn(gated, referenced, measured, packed, time.monotonic() - started, cuda=cuda)
    record = commit.fn(unserved(publish.fn(packed, summary, uploaded)))
    return promote.fn(record, "latest", source=source)


def _quantised(gated: Gated, format: Format, base: Future[Candidate | LeftOut]) -> Candidate | LeftOut:
    return quantise.fn(gated, format, base.result())


def _judged(gated: Gated, referenced: Referenced, made: Future[Candidate | LeftOut]) -> Judged | LeftOut:
    return judge.fn(gated, referenced, made.result())


def _uploaded(gated: Gated, judged: Future[Judged | LeftOut]) -> tuple[Artifact, ...]:
    return upload.fn(gated, judged.result())
