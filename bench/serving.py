"""The server against a bare loop over ONNX Runtime, side by side in one run: requests and CPU time a request,
and latency under load.

`make bench-serving`, or `python -m bench.serving [--smallest] [MODEL ...]`; needs `wrk` (Debian: `apt-get install
wrk`). Bare: as many threads as the server computes with, each calling the same session in a loop, and nothing else.
Server: the real process, asked by wrk over loopback, whose own work is done on the same processors. Rounds alternate.
--merge ROWS: a second server that computes up to so many waiting rows together.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import onnxruntime
import torch
from torch import nn

import packhouse
from bench.formats import Recurrent, mlp, resnet
from packhouse.formats.arrays import Array
from packhouse.parity.probes import read_samples
from packhouse.serving.settings import from_environment
from packhouse.spec.model import SPEC_FILE, Format
from tasks.jobs.measure import processor
from tests.support.served_releases import asked, write

ROOT = Path(__file__).resolve().parent.parent
ROUNDS = int(os.environ.get("ROUNDS", "5"))
SECONDS = float(os.environ.get("SECONDS_EACH", "5"))
CONNECTIONS = int(os.environ.get("CONNECTIONS", "8"))
GOAL = 0.95
SMALLEST = "tiny-mlp"


@dataclass(frozen=True)
class Model:
    """binary: whether requests carry the tensor as binary data, else as JSON."""

    module: nn.Module
    inputs: Array
    binary: bool


def _normal(*shape: int) -> Array:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


MODELS: dict[str, Callable[[], Model]] = {
    "tiny-mlp": lambda: Model(mlp(16, 32), _normal(128, 16), binary=False),
    "lstm": lambda: Model(Recurrent(64, 256), _normal(128, 16, 64), binary=False),
    "mlp": lambda: Model(mlp(1024, 4096), _normal(128, 1024), binary=False),
    "resnet": lambda: Model(resnet(), _normal(64, 3, 96, 96), binary=True),
    "resnet-large": lambda: Model(resnet(), _normal(32, 3, 160, 160), binary=True),
}


@dataclass(frozen=True)
class Load:
    """Requests a second, CPU milliseconds of the server a request, and latency in milliseconds."""

    rate: float
    cpu: float
    p50: float
    p95: float
    p99: float


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("models", nargs="*", default=list(MODELS))
    parser.add_argument("--merge", type=int, default=0, metavar="ROWS")
    parser.add_argument("--smallest", action="store_true", help="one small model, one round of one second")
    options = parser.parse_args()
    if not shutil.which("wrk"):
        print("NOT RUN: wrk is not installed (Debian: apt-get install wrk)", file=sys.stderr)
        return 3
    models, rounds, seconds = ([SMALLEST], 1, 1.0) if options.smallest else (options.models, ROUNDS, SECONDS)
    heads = ("model", "body", "run ms", "bare /s", "CPU ms", "server", "/s", "ratio", "CPU ms", "CPU ratio")
    print(f"| {' | '.join((*heads, 'p50 ms', 'p95 ms', 'p99 ms'))} |\n{'|---' * 13}|")
    for name in models:
        with tempfile.TemporaryDirectory(prefix="packhouse-bench-") as folder:
            for row in _rows(name, Path(folder), options.merge, rounds, seconds):
                print(row, flush=True)
    each = f"{rounds} rounds of {seconds:g} s, medians; {CONNECTIONS} connections"
    print(f"\n{processor()}, {os.cpu_count()} cores; {each}; goal for models of 5 ms or more: a ratio of {GOAL}")
    return 0


def _rows(name: str, folder: Path, merge: int, rounds: int, seconds: float) -> Iterator[str]:
    model = MODELS[name]()
    release = _release(name, model, folder)
    script = _script(model, name, folder)
    servers: dict[str, dict[str, str]] = {"each alone": {}}
    if merge:
        servers[f"merged up to {merge}"] = {"PACKHOUSE_MAX_BATCH": str(merge)}
    one = {"x": model.inputs[:1]}
    session = _session(release / Format.ONNX.file)
    milliseconds = statistics.median(_timed(lambda: session.run(None, one)) for _ in range(50)) * 1000
    bare: list[tuple[float, float]] = []
    loads: dict[str, list[Load]] = {label: [] for label in servers}
    for _ in range(rounds):
        bare.append(_bare(session, one, seconds))
        for label, environment in servers.items():
            with _server(release, environment) as (url, process):
                loads[label].append(_load(f"{url}/v2/models/{name}/infer", script, process, seconds))
    for label, found in loads.items():
        both = list(zip(found, bare, strict=True))
        ratio = statistics.median(load.rate / rate for load, (rate, _) in both)
        cpu = statistics.median(used / load.cpu for load, (_, used) in both)
        names = ("rate", "cpu", "p50", "p95", "p99")
        middle = {key: statistics.median(getattr(load, key) for load in found) for key in names}
        body = "binary" if model.binary else "JSON"
        yield (
            f"| {name} | {body} | {milliseconds:.2f} | {statistics.median(rate for rate, _ in bare):.1f} "
            f"| {statistics.median(used for _, used in bare):.3f} | {label} | {middle['rate']:.1f} | {ratio:.3f} "
            f"| {middle['cpu']:.3f} | {cpu:.3f} | {middle['p50']:.1f} | {middle['p95']:.1f} | {middle['p99']:.1f} |"
        )


def _release(name: str, model: Model, folder: Path) -> Path:
    """Staged and exported as a release is, with one golden case."""
    from tasks.jobs import export_onnx

    torch.manual_seed(0)
    source, release = folder / "source", folder / "release"
    model.module.eval()
    with patch("packhouse.architectures.registry.build", lambda *_: model.module):
        packhouse.stage(
            model.module, to=str(source), name=name, architecture="bench", inputs={"x": model.inputs}, outputs=["y"]
        )
        samples = source / "samples.safetensors"
        export_onnx.run(
            spec=str(source / SPEC_FILE),
            weights=str(source / "weights.safetensors"),
            samples=str(samples),
            out=str(folder / Format.ONNX.file),
        )
    data = (folder / Format.ONNX.file).read_bytes()
    real = read_samples(samples)["evaluation.x"]
    cases = [asked(data, {"x": real[:1]}, "batch 1"), asked(data, {"x": real[1:4]}, "batch 3")]
    write(release, (source / SPEC_FILE).read_bytes(), {Format.ONNX: data}, cases, outputs=["y"], model=name)
    return release


def _session(file: Path) -> onnxruntime.InferenceSession:
    """Bare: the options that the server has."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = from_environment(os.environ).threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])


def _timed(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def _bare(session: onnxruntime.InferenceSession, inputs: Mapping[str, Array], seconds: float) -> tuple[float, float]:
    """Calls a second, of all threads together, and CPU milliseconds a call."""
    callers = from_environment(os.environ).runs
    counts, until = [0] * callers, time.perf_counter() + seconds

    def loop(place: int) -> None:
        while time.perf_counter() < until:
            session.run(None, inputs)
            counts[place] += 1

    started, cpu = time.perf_counter(), time.process_time()
    threads = [threading.Thread(target=loop, args=(place,)) for place in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / (time.perf_counter() - started), (time.process_time() - cpu) / sum(counts) * 1000


@contextmanager
def _server(release: Path, environment: Mapping[str, str]) -> Iterator[tuple[str, int]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    given = {"MODEL_DIR": str(release), "HOST": "127.0.0.1", "PORT": str(port), "PACKHOUSE_LOG": "info"}
    with (release.parent / "log").open("wb") as log:
        command = [sys.executable, "-m", "packhouse.serving"]
        process = subprocess.Popen(command, env={**os.environ, **given, **environment}, cwd=ROOT, stderr=log)
    try:
        _wait(f"http://127.0.0.1:{port}", process)
        yield f"http://127.0.0.1:{port}", process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        finally:
            process.kill()


def _wait(url: str, process: subprocess.Popen[bytes]) -> None:
    for _ in range(600):
        try:
            urllib.request.urlopen(f"{url}/ready", timeout=1).close()
            return
        except (urllib.error.URLError, OSError):
            if process.poll() is not None:
                break
            time.sleep(0.1)
    raise SystemExit("the server did not get ready")


def _script(model: Model, name: str, folder: Path) -> Path:
    """What wrk sends, and the figures that it prints."""
    array = model.inputs[:1]
    tensor: dict[str, Any] = {"name": "x", "datatype": "FP32", "shape": list(array.shape)}
    tail, headers = b"", {"Content-Type": "application/json"}
    if model.binary:
        tail = array.tobytes()
        tensor["parameters"] = {"binary_data_size": len(tail)}
    else:
        tensor["data"] = [float(str(value)) for value in array.ravel()]
    head = json.dumps({"inputs": [tensor]}).encode()
    if model.binary:
        headers = {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(len(head))}
    (folder / "body").write_bytes(head + tail)
    lines = [f'wrk.headers["{key}"] = "{value}"' for key, value in headers.items()]
    script = folder / f"{name}.lua"
    script.write_text(
        "\n".join(
            [
                'wrk.method = "POST"',
                f'local file = io.open("{folder / "body"}", "rb")',
                'wrk.body = file:read("*a")',
                *lines,
                "done = function(summary, latency, requests)",
                "  local bad = summary.errors.status + summary.errors.connect + summary.errors.read",
                '  io.write(string.format("\\n@ %d %d %d %d %d %d\\n", summary.requests, summary.duration, bad,',
                "    latency:percentile(50), latency:percentile(95), latency:percentile(99)))",
                "end",
            ]
        )
    )
    return script


def _cpu(process: int) -> float:
    """CPU seconds of a process, its system calls included."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _load(url: str, script: Path, server: int, seconds: float) -> Load:
    command = ["wrk", "--threads", "1", "--connections", str(CONNECTIONS), "--script", str(script), url]
    subprocess.run([*command, "--duration", "1s"], check=True, capture_output=True)  # warm
    before = _cpu(server)
    done = subprocess.run([*command, "--duration", f"{seconds:g}s"], check=True, capture_output=True, text=True)
    cpu = _cpu(server) - before
    figures = next(line for line in done.stdout.splitlines() if line.startswith("@ "))
    requests, microseconds, bad, p50, p95, p99 = map(int, figures[2:].split())
    if bad:
        raise SystemExit(f"{bad} of {requests} requests were not answered with 200")
    return Load(requests / microseconds * 1e6, cpu / requests * 1000, p50 / 1000, p95 / 1000, p99 / 1000)


if __name__ == "__main__":
    sys.exit(main())
