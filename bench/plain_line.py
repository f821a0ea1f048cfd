"""The pipeline without an orchestrator: the same functions, called one after the other, formats on threads."""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor

from packhouse.formats.table import before, in_order
from tasks._support.states import Judged, LeftOut, Released
from tasks.commit_and_promote import commit_and_promote
from tasks.cuda.parity_cuda import parity_cuda
from tasks.fetch import fetch
from tasks.images.canary import unserved
from tasks.make import make_format
from tasks.measure import measure_latency
from tasks.package import package
from tasks.plan import plan
from tasks.publish import publish
from tasks.reference_outputs import reference_outputs
from tasks.validate_weights import validate_weights


def plain_line(source: str) -> Released:
    """A release of the source, as `flows.release.line` makes it, of a model without an image."""
    started = time.monotonic()
    planned = plan.fn(source)
    gated = validate_weights.fn(fetch.fn(planned))
    made: dict[str, Future[Judged | LeftOut]] = {}
    with ThreadPoolExecutor(16) as pool:
        reference = pool.submit(reference_outputs.fn, gated)

        def make(format: str) -> Judged | LeftOut:
            base = made[earlier].result() if (earlier := before(format)) else None
            return make_format.fn(gated, format, base, reference)

        for format in in_order(planned.spec.formats.wanted):
            made[format] = pool.submit(make, format)
    referenced, outcomes = reference.result(), [each.result() for each in made.values()]
    judged = [outcome for outcome in outcomes if isinstance(outcome, Judged)]
    left_out = [outcome for outcome in outcomes if isinstance(outcome, LeftOut)]
    measured, judged, too_slow = measure_latency.fn(gated, judged)
    cuda = parity_cuda.fn(gated, referenced, judged)
    packed, report = package.fn(gated, referenced, measured, judged, [*left_out, *too_slow], cuda=cuda, started=started)
    return commit_and_promote.fn(unserved(publish.fn(packed, report)), "latest", source)
