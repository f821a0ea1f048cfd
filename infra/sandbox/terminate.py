"""The end of a process that we started: asked first, then by force."""

from __future__ import annotations

import subprocess


def end(process: subprocess.Popen[bytes], *, grace_s: float) -> None:
    """SIGTERM; SIGKILL after `grace_s` seconds. When this returns it is gone."""
    process.terminate()
    try:
        process.wait(grace_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
