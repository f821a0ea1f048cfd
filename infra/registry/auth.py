"""Answers a registry's 401: basic, or a bearer token from the server that it names.

Source: https://github.com/distribution/distribution/blob/main/docs/content/spec/auth/token.md.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

import requests

from infra.registry.credentials import Credentials
from packhouse.errors import RegistryRefusal, RegistryUnavailable, squeezed

TIMEOUT_S = (10, 30)
_PART = re.compile(r'([A-Za-z_]+)="([^"]*)"')


@dataclass(frozen=True)
class Challenge:
    """scheme: in lower case. parts: realm, service, scope."""

    scheme: str
    parts: dict[str, str]


def challenge(header: str) -> Challenge:
    scheme, _, rest = header.partition(" ")
    return Challenge(scheme.lower(), {name.lower(): value for name, value in _PART.findall(rest)})


def authorization(session: requests.Session, header: str, known: Credentials, host: str) -> str:
    """The Authorization that the challenge asks for. Raises RegistryRefusal: we have none, or it is not taken."""
    asked = challenge(header)
    if asked.scheme == "basic":
        if not known.basic:
            raise _nobody(host)
        return known.basic
    if asked.scheme == "bearer" and asked.parts.get("realm"):
        return f"Bearer {_token(session, asked, known, host)}"
    raise RegistryRefusal(
        "PH-0425 asks for an authentication that packhouse does not have", where=host, got=squeezed(header, 80)
    )


def _token(session: requests.Session, asked: Challenge, known: Credentials, host: str) -> str:
    realm = asked.parts["realm"]
    _same_care(realm, host)
    scopes = asked.parts.get("scope", "").split()  # of a mount, two; each must be asked for by itself
    service = [("service", asked.parts["service"])] if "service" in asked.parts else []
    try:
        if known.identity_token:
            form = [
                ("grant_type", "refresh_token"),
                ("refresh_token", known.identity_token),
                ("client_id", "packhouse"),
            ]
            answer = session.post(
                realm, data=[*form, *service, ("scope", " ".join(scopes))], timeout=TIMEOUT_S, allow_redirects=False
            )
        else:
            headers = {"Authorization": known.basic} if known.basic else {}
            params = [*service, *(("scope", scope) for scope in scopes)]
            answer = session.get(realm, params=params, headers=headers, timeout=TIMEOUT_S, allow_redirects=False)
    except requests.RequestException as error:
        raise RegistryUnavailable(
            "PH-0423 its token server did not answer",
            where=f"{host} ({urlsplit(realm).netloc})",
            got=type(error).__name__,
        ) from error
    if answer.status_code in (401, 403):
        raise (
            _nobody(host)
            if not known.basic
            else RegistryRefusal("PH-0424 does not take these credentials", where=host, got=f"{answer.status_code}")
        )
    try:
        document = answer.json() if answer.ok else {}
        token = document.get("token") or document.get("access_token")
    except (ValueError, AttributeError):
        token = None
    if not isinstance(token, str) or not token:
        raise RegistryUnavailable("PH-0422 its token server gave no token", where=host, got=str(answer.status_code))
    return token


def _same_care(realm: str, host: str) -> None:
    """Credentials leave only encrypted, except to this machine."""
    parts = urlsplit(realm)
    if parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.netloc) and is_loopback(host)):
        return
    raise RegistryRefusal(
        "PH-0421 names a token server without TLS", where=host, got=f"{parts.scheme}://{parts.netloc}"
    )


def is_loopback(netloc: str) -> bool:
    name = netloc.rpartition("@")[2].rsplit(":", 1)[0].strip("[]")
    return name in ("localhost", "::1") or re.fullmatch(r"127(\.[0-9]{1,3}){3}", name) is not None


def _nobody(host: str) -> RegistryRefusal:
    return RegistryRefusal("PH-0420 asks who we are", where=host, next=f"docker login {host}, or set DOCKER_CONFIG")
