"""`python -m bench.append_image BASE MODEL REPOSITORY`: appends one image, prints the peak memory in MB."""

from __future__ import annotations

import resource
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


if __name__ == "__main__":
    append_image(parse(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
