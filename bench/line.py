"""A whole release against the bare sequence (bench/bare.py): wall seconds and peak memory, in one run.

`make bench-line`, or `python -m bench.line [--smallest] [MODEL ...]`.
Rounds alternate, so that both see the same machine; the
least of the rounds is compared, since everything else on a machine only ever adds. Peak memory: the largest resident
set of any one process, its share of mapped files included, sampled every 20 ms.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from bench.api import environment, prefect_api
from bench.process import Ran, run
from tasks.jobs.measure import processor

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
ENCODERS: dict[str, dict[str, int]] = {
    "minilm": {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536},
    "bert-base": {},
}
SMALL = ("tumour-table", "digits-cnn", "digits-lstm")
ROUNDS = int(os.environ.get("ROUNDS", "2"))
GOAL_TIMES_WEIGHTS, GOAL_PLUS_BYTES = 2.5, 900e6


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("models", nargs="*", default=[*SMALL, *ENCODERS])
    parser.add_argument("--smallest", action="store_true", help="one small model, one round")
    options = parser.parse_args()
    models, rounds = (list(SMALL[:1]), 1) if options.smallest else (options.models, ROUNDS)
    with tempfile.TemporaryDirectory(prefix="packhouse-bench-") as name:
        folder = Path(name)
        with prefect_api(folder) as api:
            rows = [_row(model, folder, api, rounds) for model in models]
    print(f"\n{processor()}, {os.cpu_count()} cores, least of {rounds} rounds\n")
    print("| model | weights MB | bare s | packhouse s | ratio | bare MB | packhouse MB | allowed MB |")
    print("|---|---|---|---|---|---|---|---|")
    for row in rows:
        print(row)
    return 0


def _row(model: str, folder: Path, api: str, rounds: int) -> str:
    source = folder / "sources" / model
    _stage(model, source)
    bare, ours = [], []
    for turn in range(rounds):
        out = folder / f"bare-{model}-{turn}"
        out.mkdir()
        home = environment(folder, api, f"{model}-{turn}")
        bare.append(_run([sys.executable, str(HERE / "bare.py"), str(source), str(out)], home))
        ours.append(_release(source, home))
        print(
            f"{model} round {turn}: bare {bare[-1].seconds:.1f} s, packhouse {ours[-1].seconds:.1f} s", file=sys.stderr
        )
    weights = next(source.glob("weights*")).stat().st_size
    least_bare, least_ours = min(run.seconds for run in bare), min(run.seconds for run in ours)
    peak_bare, peak_ours = max(run.peak_bytes for run in bare), max(run.peak_bytes for run in ours)
    allowed = GOAL_TIMES_WEIGHTS * weights + GOAL_PLUS_BYTES
    return (
        f"| {model} | {weights / 1e6:.1f} | {least_bare:.1f} | {least_ours:.1f} | {least_ours / least_bare:.2f} "
        f"| {peak_bare / 1e6:.0f} | {peak_ours / 1e6:.0f} | {allowed / 1e6:.0f} |"
    )


def _stage(model: str, source: Path) -> None:
    import torch

    import packhouse

    if model in SMALL:
        sys.path.insert(0, str(ROOT / "examples"))
        from train import TRAININGS

        TRAININGS[model](str(source))
        return
    from packhouse_examples.encoder import encoder

    torch.manual_seed(0)
    random = np.random.default_rng(0)
    ids, mask = random.integers(0, 30522, (16, 32)), np.ones((16, 32), np.int64)
    mask[1::2, 20:] = 0
    packhouse.stage(
        encoder(**ENCODERS[model]),
        to=str(source),
        name=model,
        architecture="examples.encoder",
        arguments=ENCODERS[model],
        inputs={"input_ids": ids, "attention_mask": mask},
        outputs=["hidden"],
        axes={"input_ids": ["batch", "time"], "attention_mask": ["batch", "time"]},
        ranges={"batch": (1, 8), "time": (1, 64)},
    )


def _release(source: Path, environment: dict[str, str]) -> Ran:
    ran = _run([sys.executable, str(HERE / "one_release.py"), str(source)], environment)
    return replace(ran, seconds=float(json.loads(ran.output.strip().splitlines()[-1])["seconds"]))


def _run(command: list[str], environment: dict[str, str]) -> Ran:
    ran = run(command, environment)
    if ran.status:
        raise SystemExit(f"{' '.join(command)} failed")
    return ran


if __name__ == "__main__":
    sys.exit(main())
