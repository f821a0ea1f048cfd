"""A Prefect server, for those who have no Prefect installed: a few requests of plain HTTP to its API."""

from __future__ import annotations

import base64
import json
import os
import urllib.error
import urllib.request
from collections.abc import Mapping
from http.client import HTTPException
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

from packhouse.errors import NotFound, Refused, Unavailable, printable

TIMEOUT_S = 5.0
TRIES = 2
WANT = "http://host:4200/api or https://host/api"
CREDENTIALS = "PREFECT_API_AUTH_STRING or PREFECT_API_KEY"


class Orchestrator:
    """url: of its API, as in PREFECT_API_URL. Credentials come from the same variables that Prefect's own client reads,
    and go to this server only. Raises Refused: the URL is none, or holds credentials, which are not repeated."""

    def __init__(self, url: str) -> None:
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError as error:
            raise Refused("PH-0157 is no URL of a Prefect API", where="PREFECT_API_URL", want=WANT) from error
        if parts.scheme not in ("http", "https") or not host or "@" in parts.netloc or parts.query or parts.fragment:
            raise Refused("PH-0157 is no URL of a Prefect API", where="PREFECT_API_URL", want=WANT)
        self._url = url.rstrip("/")
        self._where = f"{host}:{port}" if port else host

    def ask(self, path: str, body: Any = None) -> Any:
        """The answer's document: of a GET, or with a body of a POST.

        Raises NotFound: the server has no such thing. Unavailable: it did not answer in TRIES, or did not take it."""
        finding, got = "did not answer", ""
        for _ in range(TRIES):
            try:
                return self._once(path, body)
            except urllib.error.HTTPError as error:
                error.close()
                finding, got = "did not take the request", f"{error.code} {printable(error.reason)}"
                if error.code < 500:
                    raise self._final(error.code, path, got) from error
            except (OSError, HTTPException) as error:
                got = printable(str(getattr(error, "reason", error))) or type(error).__name__
            except ValueError as error:  # whose text may hold the header, and with it the key
                finding, got = "was not asked", f"{type(error).__name__} in the request or in the answer"
        raise Unavailable(f"PH-0156 the Prefect server {finding}", where=self._where, got=got)

    def _final(self, code: int, path: str, got: str) -> NotFound | Unavailable:
        if code == 404:
            return NotFound("PH-0155 the Prefect server has nothing of this name", where=f"{self._where}{path}")
        next = {401: f"check {CREDENTIALS}", 403: f"check {CREDENTIALS}"}.get(code, "")
        if 300 <= code < 400:
            next = "it sends us elsewhere, where credentials do not follow: correct PREFECT_API_URL"
        return Unavailable("PH-0154 the Prefect server did not take the request", where=self._where, got=got, next=next)

    def _once(self, path: str, body: Any) -> Any:
        headers = {"Content-Type": "application/json", **_credentials(os.environ)}
        data = None
        if body is not None:
            data = json.dumps(body).encode()
            headers |= self._csrf(headers)
        with _open(f"{self._url}{path}", data, headers) as answer:
            words = answer.read()
        return json.loads(words) if words else None

    def _csrf(self, headers: Mapping[str, str]) -> dict[str, str]:
        """What a POST has to carry where the server protects itself against forged requests; most do not."""
        client = str(uuid4())
        try:
            with _open(f"{self._url}/csrf-token?client={client}", None, headers) as answer:
                token = json.load(answer)["token"]
        except urllib.error.HTTPError as error:
            if error.code not in (404, 422):  # what a server says that asks for no token
                raise
            error.close()
            return {}
        return {"Prefect-Csrf-Token": str(token), "Prefect-Csrf-Client": client}


def _credentials(environment: Mapping[str, str]) -> dict[str, str]:
    if pair := environment.get("PREFECT_API_AUTH_STRING"):
        return {"Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}
    if key := environment.get("PREFECT_API_KEY"):
        return {"Authorization": f"Bearer {key}"}
    return {}


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Credentials go to the server that was named, and to no other."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


def _open(url: str, body: bytes | None, headers: Mapping[str, str]) -> Any:
    request = urllib.request.Request(url, data=body, headers=dict(headers))  # noqa: S310 - http or https: __init__
    return urllib.request.build_opener(_NoRedirects).open(request, timeout=TIMEOUT_S)
