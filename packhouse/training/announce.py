"""Announce: tells a Prefect server that a source was staged, so that its release starts at once.

Plain HTTP to the events API: a training environment has no Prefect. The event's id is made from the source, so the
same source twice is one event. What could not be announced is not lost: the nightly finds every source.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import Any
from uuid import NAMESPACE_URL, UUID, uuid5

from packhouse.errors import PackhouseError
from packhouse.training.prefect_client import Orchestrator

EVENT = "packhouse.source.staged"
OFF = "off"


def identity(url: str, digest: str) -> UUID:
    """Of what is staged: the source, and the digest of its package.toml, which names all other digests."""
    return uuid5(NAMESPACE_URL, f"{url}#{digest}")


def event(url: str, *, model: str, digest: str) -> dict[str, Any]:
    """The event, for a source whose package.toml has this digest. Law: equal sources have equal ids."""
    same = str(identity(url, digest))
    return {
        "id": same,
        "event": EVENT,
        "occurred": datetime.now(UTC).isoformat(),
        "resource": {"prefect.resource.id": f"packhouse.source.{same}", "packhouse.model": model},
        "related": [],
        "payload": {"source": url, "model": model, "spec": digest},
    }


def announce(url: str, *, model: str, digest: str, api: str | None = None) -> str:
    """Sends the event; the note to show, in one line, where it could not be sent. api: a Prefect API's URL, or `off`;
    by default PREFECT_API_URL, and nothing where that is not set. Never raises for a server: the source is staged."""
    place = api or os.environ.get("PREFECT_API_URL", "")
    if not place or place == OFF:
        return ""
    try:
        Orchestrator(place).ask("/events", [event(url, model=model, digest=digest)])
    except PackhouseError as error:
        return f"staged, but not announced: {error}; the nightly will find it"
    return ""
