"""What a fleet costs: a night in which nothing changed, and the orchestrator's part of a release.

`make bench-fleet`, or `python -m bench.fleet [--smallest] [MODELS ...]`; without MODELS 100 and 1,000.
Prefect's server runs on loopback; each figure is taken in a process of its own, so that imports are outside.

Night: MODELS small sources in a folder store, every one released and unchanged. Seconds of the flow, from its start
to its end; requests to both stores, listings counted as one for each thousand keys as S3 does.

Overhead: the same models released by the flow, and by calling the same functions in a plain loop. CPU seconds of the
worker's own process and wall seconds, a model; the children do the same work in both.

Cluster: bench/cluster.py. `--smallest` leaves it out: its start alone takes most of a minute.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

from bench.api import environment, prefect_api

RELEASED = 4
SMALLEST = 2
CLUSTER, CHANGED = 1000, 10
ROUNDS = 2
PAGE = 1000
ONNX_ONLY = {"torchscript": "off", "torchscript-int8": "off", "program": "off"}
GOAL_NIGHT_S, GOAL_REQUESTS, GOAL_CPU_S = 15.0, 3.0, 0.5


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("models", nargs="*", type=int, default=[100, 1000])
    parser.add_argument("--smallest", action="store_true", help="two models, one round, no cluster")
    options = parser.parse_args()
    sizes, rounds, released = ([SMALLEST], 1, 1) if options.smallest else (options.models, ROUNDS, RELEASED)
    with tempfile.TemporaryDirectory(prefix="packhouse-fleet-") as name, prefect_api(Path(name)) as api:
        folder = Path(name)
        nights = [_child("night", folder, api, size) for size in sizes]
        pairs = [
            (_child("flow", folder, api, released, turn), _child("loop", folder, api, released, turn))
            for turn in range(rounds)
        ]
        cluster = None if options.smallest else _child("cluster", folder, api, CLUSTER)
    print(f"\n{nights[0]['processor']}, {os.cpu_count()} cores\n")
    _show_nights(nights)
    _show_pairs(pairs)
    if cluster:
        _show_cluster(cluster)
    else:
        print("\nNOT RUN: the cluster, whose start alone takes most of a minute")
    return 0


def _show_nights(nights: list[dict[str, Any]]) -> None:
    print("| models, all unchanged | flow s | ms a model | requests a model |\n|---|---|---|---|")
    for night in nights:
        models = night["models"]
        print(
            f"| {models:,} | {night['seconds']:.1f} | {night['seconds'] / models * 1e3:.1f} "
            f"| {night['requests'] / models:.3f} |"
        )


def _show_pairs(pairs: list[tuple[dict[str, Any], dict[str, Any]]]) -> None:
    flow, loop = (min(pair[side]["cpu"] / pair[side]["models"] for pair in pairs) for side in (0, 1))
    flow_wall, loop_wall = (min(pair[side]["seconds"] / pair[side]["models"] for pair in pairs) for side in (0, 1))
    print(f"\n| a released model, least of {len(pairs)} rounds | flow | plain loop | difference |\n|---|---|---|---|")
    print(f"| CPU s of the worker's process | {flow:.2f} | {loop:.2f} | {flow - loop:.2f} |")
    print(f"| wall s | {flow_wall:.2f} | {loop_wall:.2f} | {flow_wall / loop_wall - 1:+.0%} |")


def _show_cluster(cluster: dict[str, Any]) -> None:
    night = cluster["night"]
    print(f"\n{CLUSTER:,} sources of which {CHANGED} changed, {len(night['shares'])} workers: {night['message']}")
    print(f"{night['seconds']:.0f} s; flow runs that each worker took: {', '.join(map(str, night['shares']))}")
    print(f"From the event of a staged source to the first task of its release: {cluster['event_to_first_task']:.1f} s")


def _child(what: str, folder: Path, api: str, models: int, turn: int = 0) -> dict[str, Any]:
    command = [sys.executable, "-m", "bench.fleet", f"--{what}", str(models)]
    home = environment(folder, api, f"{what}-{models}-{turn}")
    done = subprocess.run(command, env=home, stdout=subprocess.PIPE, text=True, check=True)
    answer: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    print(f"{what} {models}: {answer}", file=sys.stderr)
    return answer


class _Counting:
    """A store that counts requests as S3 would answer them."""

    def __init__(self, store: Any, counts: Counter[str]) -> None:
        self._store, self._counts = store, counts

    def __getattr__(self, name: str) -> Any:
        if name != "url":
            self._counts[name] += name != "list"
        return getattr(self._store, name)

    def list(self, prefix: str = "") -> Iterator[Any]:
        for number, stat in enumerate(self._store.list(prefix)):
            self._counts["list"] += number % PAGE == 0
            yield stat


def _night(models: int) -> dict[str, Any]:
    from flows.nightly import nightly
    from infra.worker.context import worker_context
    from packhouse.store import Retrying
    from tasks.jobs.measure import processor
    from tasks.night import plan as night

    sources = Path(os.environ["PACKHOUSE_HOME"]) / "sources"
    _stage_many(sources, models)
    counts: Counter[str] = Counter()
    worker_context().store = _Counting(worker_context().store, counts)
    with patch.object(night, "Retrying", lambda store: _Counting(Retrying(store), counts)):
        started = time.perf_counter()
        state = nightly([str(sources)], return_state=True)
        seconds = time.perf_counter() - started
    if state.name != "Unchanged" or f"{models} unchanged" not in str(state.message):
        raise SystemExit(f"the night was not quiet: {state}")
    return {"models": models, "seconds": seconds, "requests": sum(counts.values()), "processor": processor()}


def _stage_many(sources: Path, models: int, changed: int = 0) -> None:
    """One trained model under many names, and a channel for each that says it was released; but for `changed` of them,
    whose channel says that another one was."""
    from infra.worker.context import worker_context
    from infra.worker.release_inputs import release_inputs
    from packhouse.digest import digest_bytes
    from packhouse.release.manifest import Channel, channel_key, dump
    from packhouse.spec.model import parse

    first = _stage_one(sources.parent / "first")
    text = (first / "package.toml").read_text()
    files = [path for path in first.iterdir() if path.suffix == ".safetensors"]
    inputs = None
    for number in range(models):
        folder = sources / f"model-{number}"
        folder.mkdir(parents=True)
        for file in files:
            (folder / file.name).hardlink_to(file)
        data = text.replace('name = "fleet"', f'name = "model-{number}"').encode()
        (folder / "package.toml").write_bytes(data)
        inputs = (
            inputs.model_copy(update={"spec": digest_bytes(data)})
            if inputs
            else release_inputs(parse(data), digest_bytes(data))
        )
        release = "0" * 32 if number < changed else inputs.release_id
        channel = Channel(release=release, serial=1, moved_at="2026-01-01T00:00:00+00:00")
        document = dump(channel)
        worker_context().store.put(channel_key(f"model-{number}", "latest"), document, digest=digest_bytes(document))


def _stage_one(folder: Path, name: str = "fleet", seed: int = 0, formats: dict[str, str] | None = None) -> Path:
    import numpy as np
    import torch
    from packhouse_examples.architectures import Tabular

    import packhouse

    torch.manual_seed(seed)
    x = np.random.default_rng(0).normal(size=(64, 30)).astype(np.float32)
    arguments = {"features": 30, "classes": 2}
    packhouse.stage(
        Tabular(**arguments),
        to=str(folder),
        name=name,
        architecture="examples.tabular",
        arguments=arguments,
        inputs={"x": x},
        outputs=["logits"],
        formats=formats,
    )
    return folder


def _cluster(models: int) -> dict[str, Any]:
    from bench import cluster
    from packhouse.training.prefect_client import Orchestrator

    with cluster.cluster() as folder:
        _stage_many(folder / "sources", models, CHANGED)
        orchestrator = Orchestrator(os.environ["PREFECT_API_URL"])
        night = cluster.night(orchestrator, cluster.logs(folder))
        seconds = cluster.event_to_first_task(orchestrator, partial(_stage_below, folder / "sources"))
    if f"{CHANGED} released, {models - CHANGED} unchanged" not in night["message"]:
        raise SystemExit(f"not the night that was meant: {night}")
    return {"night": night, "event_to_first_task": seconds}


def _stage_below(sources: Path, name: str) -> None:
    _stage_one(sources / name, name, seed=1)


def _released(how: str, models: int) -> dict[str, Any]:
    """Without the formats of PyTorch where there is only one model: it is the smallest size."""
    from infra.worker.context import worker_context

    home = Path(os.environ["PACKHOUSE_HOME"])
    formats = ONNX_ONLY if models == 1 else None
    sources = [str(_stage_one(home / "sources" / str(n), f"model-{n}", n, formats)) for n in range(models + 1)]
    worker_context().sandbox.start()
    run = _by_flow if how == "flow" else _by_loop
    run(sources[:1])  # the fork server is warm, and everything is imported
    started, cpu = time.perf_counter(), time.process_time()
    run(sources[1:])
    taken = {"models": models, "seconds": time.perf_counter() - started, "cpu": time.process_time() - cpu}
    worker_context().close()
    return taken


def _by_flow(sources: list[str]) -> None:
    from flows.release import released

    if bad := [end for end in released(sources) if not end.release]:
        raise SystemExit(bad[0].line())


def _by_loop(sources: list[str]) -> None:
    """The same models at the same time on threads, and the same exports of a model, without an orchestrator."""
    from concurrent.futures import ThreadPoolExecutor

    from bench.plain_line import plain_line
    from flows.gpu_batches import MODELS

    with ThreadPoolExecutor(MODELS) as pool:
        list(pool.map(plain_line, sources))


if __name__ == "__main__":
    kind, *rest = sys.argv[1:] or [""]
    if kind == "--night":
        print(json.dumps(_night(int(rest[0]))))
    elif kind == "--cluster":
        print(json.dumps(_cluster(int(rest[0]))))
    elif kind in ("--flow", "--loop"):
        print(json.dumps(_released(kind[2:], int(rest[0]))))
    else:
        sys.exit(main())
