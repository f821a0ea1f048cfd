"""A proxy before a real registry that is rude once, or always, where a test says so."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler
from urllib.parse import urlsplit

from tests.support.loopback_registry import answering

CHUNK = 65536


@dataclass
class Rule:
    """What happens to a request whose `METHOD path` fits. answer: given in the registry's place. cut_after: the line
    breaks when so many bytes of the body went through. keeps: what went through is there, under the same address, as
    with registries whose sessions have one; Debian's forgets a session in which a request broke. changed: headers of
    the registry's answer, replaced. before: called first. times: how often."""

    where: str
    times: int = 1
    answer: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    cut_after: int = -1
    keeps: bool = False
    changed: Mapping[str, str] = field(default_factory=dict)
    before: Callable[[], object] | None = None


@dataclass
class Proxy:
    """host: where to speak to. seen: every request as `METHOD path`, with its Authorization."""

    host: str
    rules: list[Rule] = field(default_factory=list)
    seen: list[tuple[str, str]] = field(default_factory=list)
    body_bytes: int = 0
    moved: dict[str, str] = field(default_factory=dict)

    def count(self, pattern: str) -> int:
        return sum(1 for request, _ in self.seen if re.search(pattern, request))

    def take(self, request: str) -> Rule | None:
        for rule in self.rules:
            if rule.times > 0 and re.search(rule.where, request):
                rule.times -= 1
                return rule
        return None


@contextmanager
def rude(target: str) -> Iterator[Proxy]:
    """In front of the registry at `target`, host and port."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def go(self) -> None:
            request = f"{self.command} {self.path}"
            proxy.seen.append((request, self.headers.get("Authorization", "")))
            rule = proxy.take(request) or Rule("")
            if rule.before:
                rule.before()
            size = int(self.headers.get("Content-Length") or 0)
            if rule.answer:
                self._drain(size)
                return self._give(rule.answer, rule.headers, rule.body)
            try:
                self._forward(size, rule)
            except OSError:
                self.close_connection = True
            return None

        def _forward(self, size: int, rule: Rule) -> None:
            upstream = HTTPConnection(target, timeout=30)
            upstream.putrequest(
                self.command, proxy.moved.get(self.path, self.path), skip_host=True, skip_accept_encoding=True
            )
            cut = 0 <= rule.cut_after < size
            through = rule.cut_after if cut else size
            for name, value in self.headers.items():
                if name.lower() not in ("connection", "content-length"):
                    upstream.putheader(name, value)
            if "Content-Length" in self.headers:
                upstream.putheader("Content-Length", str(through if rule.keeps else size))
            upstream.endheaders()
            done = 0
            while done < through:
                chunk = self.rfile.read(min(CHUNK, through - done))
                upstream.send(chunk)
                done += len(chunk)
                proxy.body_bytes += len(chunk)
            if cut:
                if rule.keeps:
                    there = urlsplit(upstream.getresponse().headers["Location"])
                    proxy.moved[self.path] = f"{there.path}?{there.query}"
                upstream.close()
                self.connection.shutdown(socket.SHUT_RDWR)
                self.close_connection = True
                return
            answer = upstream.getresponse()
            data = answer.read()
            headers = {name: value for name, value in answer.getheaders() if name.lower() != "transfer-encoding"}
            length = headers.pop("Content-Length", str(len(data)))
            self._give(answer.status, {**headers, **rule.changed}, data, length)
            upstream.close()

        def _drain(self, size: int) -> None:
            while size > 0:
                size -= len(self.rfile.read(min(CHUNK, size)) or b" " * size)

        def _give(self, status: int, headers: Mapping[str, str], data: bytes, length: str = "") -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", length or str(len(data)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            """Quiet."""

        do_GET = do_HEAD = do_PUT = do_POST = do_PATCH = do_DELETE = go  # noqa: N815 - names that the module wants

    with answering(Handler) as port:
        proxy = Proxy(f"127.0.0.1:{port}")
        yield proxy
