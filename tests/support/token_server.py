"""A token server as large registries have one: it signs what a registry's configuration trusts."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from tests.support.loopback_registry import answering

ISSUER, SERVICE = "test-issuer", "test-registry"


@dataclass
class TokenServer:
    """asked: the scopes of each request. allowed: repositories that the user may write to."""

    realm: str
    certificate: Path
    allowed: tuple[str, ...]
    asked: list[list[str]] = field(default_factory=list)

    @property
    def configuration(self) -> dict[str, str]:
        return {
            "realm": self.realm,
            "service": SERVICE,
            "issuer": ISSUER,
            "rootcertbundle": str(self.certificate),
        }


@contextmanager
def token_server(
    certificate: Path, key: Path, user: tuple[str, str], allowed: tuple[str, ...]
) -> Iterator[TokenServer]:
    private = serialization.load_pem_private_key(key.read_bytes(), None)
    expected = "Basic " + base64.b64encode(":".join(user).encode()).decode()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            scopes = parse_qs(urlsplit(self.path).query).get("scope", [])
            found.asked.append(scopes)
            if self.headers.get("Authorization") != expected:
                self.send_response(401)
                self.end_headers()
                return
            access = []
            for scope in scopes:
                kind, name, actions = scope.split(":")
                if name in found.allowed:
                    access.append({"type": kind, "name": name, "actions": actions.split(",")})
            body = json.dumps({"token": _jwt(private, certificate, access)}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Quiet."""

    with answering(Handler) as port:
        found = TokenServer(f"http://127.0.0.1:{port}/token", certificate, allowed)
        yield found


def _jwt(key: ec.EllipticCurvePrivateKey, certificate: Path, access: list[dict[str, object]]) -> str:
    lines = certificate.read_text().splitlines()
    chain = "".join(line for line in lines if not line.startswith("-"))
    now = int(time.time())
    head = {"typ": "JWT", "alg": "ES256", "x5c": [chain]}
    claims = {"iss": ISSUER, "aud": SERVICE, "sub": "test", "iat": now, "nbf": now - 10, "exp": now + 300, "jti": "1"}
    signed = ".".join(_encoded(json.dumps(part).encode()) for part in (head, {**claims, "access": access}))
    r, s = decode_dss_signature(key.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
    return f"{signed}.{_encoded(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
