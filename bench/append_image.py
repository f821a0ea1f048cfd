"""`python -m bench.append_image BASE MODEL REPOSITORY`: appends one image, prints the peak memory in MB."""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path

from infra.registry.append import Pushed, append, pull_base
from infra.registry.client import Client
from infra.registry.credentials import Credentials
from infra.registry.layer import layer
from infra.registry.reference import Reference, parse


def append_image(base: Reference, model: Path, repository: str) -> Pushed:
    """Seconds: of all of it, the layer's hashing and the connection too."""
    started = time.perf_counter()
    with Client(base.host, known=Credentials()) as client:
        found = pull_base(client, base, "linux/amd64")
        made = layer({"models/model.onnx": model}, modified=found.epoch)
        target = Reference(base.host, repository)
        pushed = append(client, found, target, made, labels={"bench": "1"}, environment={"MODEL_DIR": "/models"})
    return replace(pushed, seconds=time.perf_counter() - started)


def _peak() -> int:
    """Of this process, in bytes. Not getrusage's: a child that is started by vfork begins there with its parent's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


if __name__ == "__main__":
    append_image(parse(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
    print(_peak() // 1_000_000)
