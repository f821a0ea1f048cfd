"""A model above 2 GiB from staging to verify, and what each step took: `python -m bench.large [--smallest] [HIDDEN]`.

A dense model of 24,576 units (604 million parameters, 2.4 GB) with random weights; ONNX and its INT8. Needs 16 GB of
memory and 25 GB of disk below TMPDIR, which it gives back.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

import packhouse
from packhouse.architectures import registry

HIDDEN = 24_576
FORMATS = {"torchscript": "off", "torchscript-int8": "off", "program": "off"}
GATES: dict[str, float | str] = {"cuda": "off", "int8_worth": 0}
SMALLEST = 64


def stage(to: str, hidden: int) -> None:
    arguments = {"features": 16, "classes": 4, "hidden": hidden}
    torch.manual_seed(0)
    model = registry.build("examples.tabular", arguments)
    x = np.random.default_rng(0).normal(size=(24, 16)).astype(np.float32)
    packhouse.stage(
        model,
        to=to,
        name="large",
        architecture="examples.tabular",
        arguments=arguments,
        inputs={"x": x},
        outputs=["y"],
        ranges={"batch": (1, 8)},
        formats=FORMATS,
        gates=GATES,
    )


def timed(what: str, *command: str) -> None:
    """Peak: the largest resident set of any one process so far, in GB."""
    started = time.perf_counter()
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e9
    print(f"{what}: {seconds:.0f} s, peak {peak:.1f} GB", flush=True)
    if done.returncode:
        sys.exit(f"{done.stdout}\n{done.stderr[-3000:]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("hidden", nargs="?", type=int, default=HIDDEN)
    parser.add_argument("--smallest", action="store_true", help=f"{SMALLEST} units")
    options = parser.parse_args()
    hidden = SMALLEST if options.smallest else options.hidden
    with tempfile.TemporaryDirectory(prefix="packhouse-large-") as name:
        home, source = Path(name), f"{name}/source"
        os.environ["PACKHOUSE_HOME"] = name
        packhouse_ = (sys.executable, "-m", "packhouse")
        timed("stage", sys.executable, "-m", "bench.large", "--stage", source, str(hidden))
        timed("release", *packhouse_, "release", source)
        timed("verify", *packhouse_, "verify", "large@latest")
        (folder,) = (home / "store" / "large" / "releases").iterdir()
        for file in sorted(folder.iterdir()):
            print(f"{file.name}: {file.stat().st_size:,} bytes")
        for row in json.loads((folder / "report.json").read_bytes())["rows"]:
            print({key: value for key, value in row.items() if value is not None})


if __name__ == "__main__":
    if sys.argv[1:2] == ["--stage"]:
        stage(sys.argv[2], int(sys.argv[3]))
    else:
        main()
