"""Around every request: an id, a line in the log, a count; and an answer without a traceback, whatever happened."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import time
from itertools import count

from starlette.datastructures import MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from packhouse.serving.logs import event
from packhouse.serving.metrics import Metrics
from packhouse.serving.responses import JSON, dump

REQUEST_ID = "X-Request-Id"
_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_PROCESS, _COUNT = os.urandom(6).hex(), count(1)
"""Ids that no other process gives; random bytes for each would cost as much as the rest of a line in the log."""
_QUIET = frozenset({"/health", "/ready", "/metrics", "/v2/health/live", "/v2/health/ready"})
"""Asked every few seconds by machines: no line in the log, unless the answer is an error."""


class Observed:
    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.perf_counter(), 0
        identity = _identity(scope)
        scope["request_id"] = identity

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[REQUEST_ID] = identity
            await send(message)

        try:
            await self._app(scope, receive, sending)
        except asyncio.CancelledError:  # the time to stop is up
            if not status:
                answer = {"error": "the server stops, and this took too long"}
                await Response(dump(answer), 503, media_type=JSON)(scope, receive, sending)
        except Exception as error:
            event("fault", {"request": identity}, level=logging.ERROR, error=error)
            if not status:
                answer = {"error": "an error of the server; its log has this id", "id": identity}
                await Response(dump(answer), 500, media_type=JSON)(scope, receive, sending)
        finally:
            self._end(scope, status, time.perf_counter() - started)

    def _end(self, scope: Scope, status: int, seconds: float) -> None:
        """status 0: cut off before there was an answer."""
        route = getattr(scope.get("route"), "path", "none")
        self._metrics.request(route, status, seconds)
        level = logging.INFO if 0 < status < 500 else logging.WARNING
        if route in _QUIET:
            level = logging.DEBUG
        fields = {
            "request": scope["request_id"],
            "method": scope["method"],
            "route": route,
            "status": status,
            "ms": round(seconds * 1000, 3),
        }
        event("request", fields | ({"refused": scope["refused"]} if "refused" in scope else {}), level=level)


def _identity(scope: Scope) -> str:
    """The client's own, where it is a plain word."""
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _ID.fullmatch(value):
            return str(value, "ascii")
    return f"{_PROCESS}-{next(_COUNT):x}"
