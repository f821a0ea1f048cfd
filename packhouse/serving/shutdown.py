"""The end of the server: what is under way is answered, within a bound; nothing new is begun."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

import uvicorn

from packhouse.serving.logs import event
from packhouse.serving.readiness import Phase, Readiness

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Server(uvicorn.Server):
    """Ends with status 0 after a signal, where uvicorn's own would send itself the signal again."""

    def __init__(self, config: uvicorn.Config, readiness: Readiness) -> None:
        super().__init__(config)
        self._readiness = readiness

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        before = {number: signal.signal(number, self.handle_exit) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The second signal does not wait for anything any more."""
        self.force_exit = self.should_exit
        self._readiness.move(Phase.STOPPING)
        self.should_exit = True

    async def shutdown(self, sockets: list[object] | None = None) -> None:  # type: ignore[override]  # uvicorn's sockets, unread
        event("stopping", {"grace_s": self.config.timeout_graceful_shutdown})
        await super().shutdown(sockets)  # type: ignore[arg-type]
