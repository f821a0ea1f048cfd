"""Runs one release flow and prints its seconds: from the flow's start to its end, Prefect's API already up.

The sandbox's fork server starts with the flow, so its warm-up is inside. `python bench/one_release.py SOURCE`.
"""

from __future__ import annotations

import json
import sys
import time

from flows.release import released
from infra.worker.context import worker_context

if __name__ == "__main__":
    started = time.perf_counter()
    worker_context().sandbox.start()
    (end,) = released([sys.argv[1]])
    print(json.dumps({"seconds": time.perf_counter() - started, "release": end.release}))
    worker_context().close()
