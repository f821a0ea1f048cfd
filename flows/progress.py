"""The bar that an operator sees on a run over several models."""

from __future__ import annotations

from typing import cast
from uuid import UUID

from prefect.artifacts import create_progress_artifact, update_progress_artifact

from flows.run_result import End


class Progress:
    """One artifact of the run, from 0 to 100 percent of its models."""

    def __init__(self, models: int) -> None:
        self._models, self._ended = models, 0
        words = f"0 of {models} models"
        self._artifact = cast(UUID, create_progress_artifact(0.0, key="progress", description=words))

    def ended(self, end: End) -> End:
        self._ended += 1
        words = f"{self._ended} of {self._models} models; last: {end.line()}"
        update_progress_artifact(self._artifact, 100.0 * self._ended / self._models, description=words)
        return end
