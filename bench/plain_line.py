"""The line without an orchestrator: the same functions, called one after the other, exports on threads."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

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
from tasks.states import Judged, LeftOut, Released


def plain_line(source: str) -> Released:
    started = time.monotonic()
    planned = plan.fn(source)
    gated = gate.fn(fetch.fn(planned))
    wanted = planned.spec.formats.wanted
    with ThreadPoolExecutor(16) as pool:
        asked = pool.submit(refer.fn, gated)
        made = {format: pool.submit(export.fn, gated, format) for format in wanted if not format.int8}
        for format in (format for format in wanted if format.int8):
            base = made[format.base]
            made[format] = pool.submit(lambda format=format, base=base: quantise.fn(gated, format, base.result()))
        referenced = asked.result()
        verdicts = [
            pool.submit(lambda candidate=candidate: judge.fn(gated, referenced, candidate.result()))
            for candidate in made.values()
        ]
        uploads = [pool.submit(lambda verdict=verdict: upload.fn(gated, verdict.result())) for verdict in verdicts]
        outcomes = [verdict.result() for verdict in verdicts]
        uploaded = [done.result() for done in uploads]
    judged = [outcome for outcome in outcomes if isinstance(outcome, Judged)]
    left_out = [outcome for outcome in outcomes if isinstance(outcome, LeftOut)]
    insist.fn(planned, left_out)
    measured = measure.fn(gated, referenced, judged)
    judged, too_slow = pays.fn(gated, judged, measured)
    cuda = parity_cuda.fn(gated, referenced, judged)
    packed = pack.fn(gated, referenced, judged, [*left_out, *too_slow], cuda=cuda.verdicts)
    summary = report.fn(gated, referenced, measured, packed, time.monotonic() - started, cuda=cuda)
    record = commit.fn(publish.fn(packed, summary, uploaded))
    return promote.fn(record, "latest", source=source)
