"""Where requests wait: a bounded queue before a bounded number of threads. The event loop reads and writes, and never
parses, checks or computes.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from packhouse.serving.errors import Busy
from packhouse.serving.readiness import Readiness
from packhouse.serving.responses import Answer


class Desk:
    """threads: requests that are worked on at a time. queue: those that may wait besides."""

    def __init__(self, readiness: Readiness, *, threads: int, queue: int) -> None:
        self._readiness = readiness
        self._threads, self._queue = threads, queue
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="serving")
        self._lock = threading.Lock()
        self.inside = 0

    @property
    def waiting(self) -> int:
        return max(0, self.inside - self._threads)

    async def ask(self, work: Callable[[], Answer]) -> Answer:
        """Raises NotReady, Busy, and what the work raises."""
        self._readiness.check()
        if self.inside >= self._threads + self._queue:
            raise Busy("PH-0479 as many requests as this server takes are waiting", want=f"at most {self._queue}")
        with self._lock:
            self.inside += 1
        future = self._pool.submit(work)
        future.add_done_callback(self._left)
        return await asyncio.wrap_future(future)

    def _left(self, _: Future[Answer]) -> None:
        """When the work is done, and not when nobody waits for it any more: a run can not be called off."""
        with self._lock:
            self.inside -= 1

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
