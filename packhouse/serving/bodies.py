"""Reads a request's body: never more than its limit, nor longer, nor more of all requests together than bearable."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.requests import ClientDisconnect, Request

from packhouse.serving.errors import Busy, NotTaken, RequestRefused, TooLarge, TooSlow

TOGETHER = 4
"""Bodies of the largest size that are held at a time; many more of the usual size."""


class Bodies:
    def __init__(self, *, limit: int, seconds: float) -> None:
        self._limit, self._seconds, self._held = limit, seconds, 0

    @asynccontextmanager
    async def read(self, request: Request) -> AsyncIterator[bytes]:
        """The body, which counts as held until the request is answered. Raises RequestRefused."""
        if encoding := request.headers.get("content-encoding"):
            raise NotTaken(
                "PH-0467 this server reads no encoded bodies", where="header Content-Encoding", got=encoding[:40]
            )
        declared = request.headers.get("content-length", "")
        if declared.isdigit() and int(declared[:20]) > self._limit:
            raise self._too_large()
        body = bytearray()
        try:
            async with asyncio.timeout(self._seconds):
                async for chunk in request.stream():
                    self._held += len(chunk)
                    body += chunk
                    self._check(len(body))
            yield bytes(body)
        except TimeoutError as error:
            raise TooSlow("PH-0468 no whole body in time", want=f"{self._seconds:g} s") from error
        except ClientDisconnect as error:
            raise RequestRefused("PH-0469 the client went away before its body was whole") from error
        finally:
            self._held -= len(body)

    def _check(self, size: int) -> None:
        if size > self._limit:
            raise self._too_large()
        if self._held > TOGETHER * self._limit:
            raise Busy(
                "PH-0466 bodies of other requests fill the server's memory", want=f"{TOGETHER * self._limit:,} bytes"
            )

    def _too_large(self) -> TooLarge:
        return TooLarge("PH-0465 the body is too large", want=f"at most {self._limit:,} bytes")
