"""Each peer in a folder of its own beside packhouse's environment, from which it has torch, ONNX and ONNX Runtime."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "packhouse-bench"


class CanNot(Exception):
    """Why a tool can not be installed, or can not do a model."""


def installed(tool: str) -> Path:
    """The folder for PYTHONPATH. Without dependencies: what is pinned in the file beside this one is all that it needs
    for these models, and some ask for a CUDA build."""
    wanted = HERE / f"{tool}.txt"
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    folder = CACHE / f"{tool}-{version}-{hashlib.sha256(wanted.read_bytes()).hexdigest()[:12]}"
    if folder.exists():
        return folder
    making = folder.with_name(f"{folder.name}.{os.getpid()}")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--disable-pip-version-check"]
    done = subprocess.run([*pip, "--target", str(making), "--requirement", str(wanted)], capture_output=True, text=True)
    if done.returncode:
        shutil.rmtree(making, ignore_errors=True)
        raise CanNot(f"pip install: {(done.stderr.strip().splitlines() or ['failed'])[-1][:200]}")
    making.rename(folder)
    return folder
