"""A model's image: appended over the registry's API, against `docker build` and `push` of the same files.

`make bench-images`, or `python -m bench.images [--smallest] [FLEET]`; FLEET: how many images of 10 MB (1,000).
Needs root, and Debian's docker.io, docker-registry and debootstrap.

Both start from the same base in the same registry on loopback, both in this process by what the worker calls
(infra.registry, and docker's SDK), in turn, each round with new random content and a new repository. A fleet is pushed
from THREADS threads, by docker a part of it. Memory: the largest resident set of a process that appends one image.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

from bench.append_image import append_image
from infra.images.docker import build_and_push
from infra.registry.reference import Reference, parse
from tasks.jobs.measure import processor
from tests.servers.engine import Engine, as_image, engine
from tests.servers.registry import registry

MB = 1_000_000
PROGRAMS = ("dockerd", "docker-registry", "debootstrap")
SIZES = {10 * MB: 5, 100 * MB: 3, 400 * MB: 3}
"""Bytes of the model -> rounds."""
FLEET, FLEET_BYTES, BY_DOCKER, THREADS = 1000, 10 * MB, 20, 2
MEMORY_SIZES = [10 * MB, 1000 * MB]
GOAL_MB = 64


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("fleet", nargs="?", type=int, default=FLEET)
    parser.add_argument("--smallest", action="store_true", help="one model of 1 MB, one round, a fleet of 2")
    options = parser.parse_args()
    if missing := [program for program in PROGRAMS if shutil.which(program) is None]:
        print(f"NOT RUN: no {missing[0]}: apt-get install docker.io docker-registry debootstrap", file=sys.stderr)
        return 3
    sizes, fleet = ({MB: 1}, 2) if options.smallest else (SIZES, options.fleet)
    with tempfile.TemporaryDirectory(prefix="packhouse-images-") as name:
        folder = Path(name)
        (folder / "engine").mkdir()
        with registry(folder / "registry") as found, engine(folder / "engine") as docker:
            base = _base(docker, found.host)
            print(f"\n{processor()}, {os.cpu_count()} cores\n")
            _sizes(folder, base, docker, sizes)
            _fleet(folder, base, docker, fleet)
            _memory(folder, base, [MB] if options.smallest else MEMORY_SIZES)
    return 0


def _base(docker: Engine, host: str) -> Reference:
    name = f"{host}/bench/runtime"
    as_image(docker, f"{name}:base")
    pushed = docker.docker("push", f"{name}:base").stdout
    digest = next(word for word in pushed.split() if word.startswith("sha256:"))
    return parse(f"{name}@{digest}")


def _sizes(folder: Path, base: Reference, docker: Engine, sizes: dict[int, int]) -> None:
    print("| model MB | append s | docker build and push s | times faster | MB sent by append |\n|---|---|---|---|---|")
    for size, rounds in sizes.items():
        ours, theirs, sent = [], [], 0
        for turn in range(rounds):
            model = _random(folder, size)
            pushed = append_image(base, model, f"bench/a{size}-{turn}")
            ours.append(pushed.seconds)
            sent = pushed.sent
            theirs.append(_docker(docker, base, model, f"bench/d{size}-{turn}"))
            model.unlink()
        a, d = statistics.median(ours), statistics.median(theirs)
        print(f"| {size / MB:.0f} | {a:.2f} | {d:.2f} | {d / a:.1f} | {sent / MB:.1f} |", flush=True)


def _fleet(folder: Path, base: Reference, docker: Engine, count: int) -> None:
    models = [_random(folder, FLEET_BYTES) for _ in range(THREADS)]
    free = SimpleQueue[Path]()
    for model in models:
        free.put(model)

    def ours(number: int) -> None:
        model = _renewed(free.get(), number)
        append_image(base, model, f"bench/fleet{number}")
        free.put(model)

    def theirs(number: int) -> None:
        model = _renewed(free.get(), -number)
        _docker(docker, base, model, f"bench/docked{number}")
        free.put(model)

    each = {}
    for name, one, many in (("append", ours, count), ("docker", theirs, min(BY_DOCKER, count))):
        started = time.perf_counter()
        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(one, range(many)))
        seconds = time.perf_counter() - started
        each[name] = seconds / many
        print(f"\n{many:,} images of {FLEET_BYTES / MB:.0f} MB by {name}, {THREADS} threads: {seconds:.1f} s", end="")
    print(f"\nAn image of a fleet: append {each['append']:.3f} s, docker {each['docker']:.3f} s: ", end="")
    print(f"{each['docker'] / each['append']:.1f} times faster")


def _memory(folder: Path, base: Reference, sizes: list[int]) -> None:
    for size in sizes:
        model = _random(folder, size)
        command = [sys.executable, "-m", "bench.append_image", str(base), str(model), f"bench/m{size}"]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        print(f"Peak memory of a process that appends {size / MB:,.0f} MB: {done.stdout.strip()} MB, goal {GOAL_MB}")
        model.unlink()


def _docker(docker: Engine, base: Reference, model: Path, repository: str) -> float:
    started = time.perf_counter()
    build_and_push(
        docker.url,
        {"models/model.onnx": model},
        base=base,
        target=Reference(base.host, repository),
        folder="models",
        labels={"bench": "1"},
        environment={"MODEL_DIR": "/models"},
    )
    return time.perf_counter() - started


def _random(folder: Path, size: int) -> Path:
    """Weights hardly compress; random bytes do not at all."""
    handle, name = tempfile.mkstemp(dir=folder)
    with os.fdopen(handle, "wb") as file:
        for start in range(0, size, 64 * MB):
            file.write(os.urandom(min(64 * MB, size - start)))
    return Path(name)


def _renewed(model: Path, number: int) -> Path:
    """Another model of the same size."""
    with model.open("r+b") as file:
        file.write(number.to_bytes(8, "big", signed=True))
    return model


if __name__ == "__main__":
    sys.exit(main())
