"""Servers that misbehave on loopback: silent ones, ones that break off, ones that lose an answer."""

from __future__ import annotations

import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

from tests.servers.place import free_ports


def refusing() -> str:
    """An endpoint where nobody listens."""
    (port,) = free_ports(1)
    return f"http://127.0.0.1:{port}"


@contextmanager
def silent() -> Iterator[str]:
    """Takes the connection and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@contextmanager
def breaking_off(head: bytes, part_of_body: bytes) -> Iterator[str]:
    """Answers each request with a head and a part of what the head promised, and closes."""

    class Answer(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(65536)
            self.request.sendall(head + part_of_body)

    with _serving(Answer) as url:
        yield url


@contextmanager
def losing_one_answer(endpoint: str, *, instead: Callable[[], object] | None = None) -> Iterator[str]:
    """Passes everything on, both ways, but the answer to the first PUT. With `instead`, that PUT is not passed on
    either, and `instead` is called."""
    behind = urlsplit(endpoint)
    lost = threading.Event()

    class Relay(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            doomed = threading.Event()
            with socket.create_connection((behind.hostname, behind.port)) as server:
                up = threading.Thread(target=self.up, args=(server, doomed), daemon=True)
                up.start()
                with suppress(OSError):
                    self.down(server, doomed)
                for end in (server, self.request):
                    with suppress(OSError):
                        end.shutdown(socket.SHUT_RDWR)
                up.join()

        def up(self, server: socket.socket, doomed: threading.Event) -> None:
            with suppress(OSError):
                while data := self.request.recv(65536):
                    if data.startswith(b"PUT ") and not lost.is_set():
                        lost.set()
                        doomed.set()
                        if instead:
                            instead()
                            break
                    server.sendall(data)
                server.shutdown(socket.SHUT_WR)

        def down(self, server: socket.socket, doomed: threading.Event) -> None:
            while data := server.recv(65536):
                if doomed.is_set() and not data.startswith(b"HTTP/1.1 100"):
                    return
                self.request.sendall(data)

    with _serving(Relay) as url:
        yield url
    assert lost.is_set(), "no PUT came by"


@contextmanager
def _serving(handler: type[socketserver.BaseRequestHandler]) -> Iterator[str]:
    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        block_on_close = False

    with Server(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
