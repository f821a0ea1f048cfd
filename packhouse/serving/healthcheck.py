"""`python -m packhouse.serving.healthcheck [--uds PATH]`: 0 if the server here is ready, else 1 and one line.

For an image's HEALTHCHECK: plain Python, and none of the server's imports.
"""

from __future__ import annotations

import http.client
import os
import socket
import sys

TIMEOUT_S = 3.0


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout_s: float = TIMEOUT_S) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def main(arguments: list[str]) -> int:
    if arguments[:1] == ["--uds"] and len(arguments) == 2:
        connection: http.client.HTTPConnection = UnixConnection(arguments[1])
    else:
        port = int(os.environ.get("PORT") or 8080)
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", "/ready")
        answer = connection.getresponse()
        words = answer.read(2000).decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        sys.stderr.write(f"not ready: {error}\n")
        return 1
    if answer.status != 200:
        sys.stderr.write(f"not ready: {words}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
