"""What runs left for each other in the store, under `_work/`, goes away some days after nobody needs it."""

from __future__ import annotations

import time

from infra.workshop import workshop
from tasks.stage import one_line, stage

KEEP_S = 7 * 24 * 3600.0
"""By the store's clock. No run lasts so long: a night gives up after two days at most."""


@stage("sweep")
def sweep() -> int:
    """How many objects were old enough to go."""
    store = workshop().store
    old = [stat.key for stat in store.list("_work/") if stat.modified < time.time() - KEEP_S]
    if old:
        with one_line("nightly", "sweep") as line:
            for key in old:
                store.delete(key)
            line.note(f"{len(old)} left over from earlier runs are gone")
    return len(old)
