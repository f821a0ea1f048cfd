"""What runs left for each other in the store goes away some days after nobody needs it: only what its row in the
store's layout lets expire."""

from __future__ import annotations

import time

from infra.worker.context import worker_context
from packhouse.release.store_layout import AREAS, WORK, expired
from tasks._support.pipeline_task import one_line, pipeline_task

KEEP_S = WORK.expires_s or 0.0
"""By the store's clock. No run lasts so long: a night gives up after two days at most."""


@pipeline_task("sweep")
def clean_up() -> int:
    """How many objects were old enough to go."""
    store, now = worker_context().store, time.time()
    areas = [area for area in AREAS if area.expires_s is not None]
    stats = [stat for area in areas for stat in store.list(area.key())]
    old = [stat.key for stat in stats if expired(stat.key, now - stat.modified)]
    if old:
        with one_line("nightly", "sweep") as line:
            for key in old:
                store.delete(key)
            line.note(f"{len(old)} left over from earlier runs are gone")
    return len(old)
