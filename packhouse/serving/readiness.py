"""Whether the server answers: it starts, is ready, has refused its model, or stops."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from packhouse.serving.errors import NotReady


class Phase(StrEnum):
    STARTING = "starting"
    READY = "ready"
    REFUSED = "refused"
    STOPPING = "stopping"


@dataclass
class Readiness:
    """reason: why the model was refused. A server that stops stays so."""

    phase: Phase = Phase.STARTING
    reason: str = ""

    def move(self, phase: Phase, reason: str = "") -> None:
        if self.phase is not Phase.STOPPING:
            self.phase, self.reason = phase, reason

    def check(self) -> None:
        """Raises NotReady."""
        if self.phase is not Phase.READY:
            raise NotReady(f"PH-0510 the server is not ready: {self.phase}", got=self.reason)
