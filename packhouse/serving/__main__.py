"""Serves one release: `python -m packhouse.serving`, and `packhouse serve`. Settings come from the environment:
docs/serving.md.

The release is verified and loaded first; what is wrong with it is one line and an exit status, and nothing listens.
"""

from __future__ import annotations

import argparse
import logging
import os
import socket
import sys
from pathlib import Path

import uvicorn

from packhouse import exit_status
from packhouse.formats.processors import has_vnni
from packhouse.serving.app import Serving, about
from packhouse.serving.logs import event, to_stderr
from packhouse.serving.model import Model, has_cuda
from packhouse.serving.readiness import Readiness
from packhouse.serving.release import open_release
from packhouse.serving.settings import ServingSettings, from_environment
from packhouse.serving.shutdown import Server
from packhouse.serving.sockets import address, inherited, tcp, unix
from packhouse.trust.signatures import Trusted

CUT_OFF = 143
"""As a process that SIGTERM ended: requests were still under way when the time was up."""
KEEP_ALIVE_S = 75


def main() -> int:
    exit_status.end_in_order()
    options = _options()
    try:
        return serve(from_environment(os.environ), uds=options.uds, fd=options.fd)
    except BaseException as error:
        if isinstance(error, SystemExit):
            raise
        return exit_status.said(error, verbose=False)


def _options() -> argparse.Namespace:
    parser = exit_status.Parser(prog="python -m packhouse.serving", description="Serves one release.")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--uds", type=Path, metavar="PATH", help="listen on a Unix socket instead of HOST and PORT")
    where.add_argument("--fd", type=int, metavar="N", help="listen on a socket that is open as this descriptor")
    return parser.parse_args()


def serve(settings: ServingSettings, *, uds: Path | None = None, fd: int | None = None) -> int:
    """Serves one release until a signal ends it; uvicorn takes SIGINT and SIGTERM.

    Args:
        settings: What the environment says.
        uds: Listen on this Unix socket, instead of the host and port of the settings.
        fd: Listen on the socket that is open as this descriptor.

    Returns:
        The exit status, 0. A process that must cut requests off ends here, with 143.

    Raises:
        PackhouseError: What is wrong with the release. Nothing listens then.
        OSError: The address is taken.
    """
    to_stderr(settings.log.value)
    serving = _open(settings)
    listener = _listener(settings, uds, fd)
    config = uvicorn.Config(
        serving.app,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        ws="none",
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=settings.grace_s,  # type: ignore[arg-type]  # says int, takes parts of a second
    )
    server = Server(config, serving.readiness)
    event("listening", {"address": address(listener)})
    server.run(sockets=[listener])
    if serving.desk.inside:
        event("cut off", {"requests": serving.desk.inside}, level=logging.ERROR)
        sys.stderr.flush()
        os._exit(CUT_OFF)  # a run can not be called off, and would keep the process
    event("stopped", {})
    return 0


def _open(settings: ServingSettings) -> Serving:
    cuda = has_cuda()
    served = open_release(
        settings.folder,
        expected=settings.manifest,
        choice=settings.choice,
        vnni=has_vnni(),
        cuda=cuda,
        golden=settings.golden,
        trusted=Trusted.read(settings.trust.split(":")) if settings.trust else None,
    )
    model = Model(served, threads=settings.threads, cuda=cuda)
    event("loaded", {"threads": settings.threads, "runs": settings.runs, **about(model)})
    return Serving(model, settings, Readiness())


def _listener(settings: ServingSettings, uds: Path | None, fd: int | None) -> socket.socket:
    if uds is not None:
        return unix(uds)
    return inherited(fd) if fd is not None else tcp(settings.host, settings.port)


if __name__ == "__main__":
    sys.exit(main())
