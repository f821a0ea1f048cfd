"""TorchScript frozen or not: what `torch.jit.freeze` gives a call, and what it takes.

`make bench-frozen`, or `python -m bench.frozen [--smallest]`.
The same scripted module, saved as it is and frozen, and loaded again; CPU time of both on one
thread, interleaved, the median of the rounds' ratios, and the sizes of the archives.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
import warnings
from pathlib import Path

import torch
from torch import nn

from bench.formats import Recurrent, Transformer, cnn, mlp, resnet
from tasks.jobs.measure import processor

ROUNDS, BLOCK_S, WARM_UP = 21, 0.02, 6
BATCHES = (1, 32)


def models() -> dict[str, tuple[nn.Module, tuple[int, ...]]]:
    """name -> the module, and the shape of one input without its batch."""
    return {
        "table, 16 features": (mlp(16, 32), (16,)),
        "mlp": (mlp(1024, 2048), (1024,)),
        "cnn": (cnn(), (1, 8, 8)),
        "resnet": (resnet(), (3, 64, 64)),
        "lstm": (Recurrent(64, 128), (32, 64)),
        "transformer": (Transformer(0, 128, 4), (32, 8)),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--smallest", action="store_true", help="one small model, one round")
    smallest = parser.parse_args().smallest
    rounds = 1 if smallest else ROUNDS
    torch.manual_seed(0)
    torch.set_num_threads(1)
    print(f"\n{processor()}\n\n| model | size, MB | frozen, MB | faster, batch 1 | batch 32 | largest difference |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name, warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")
        for what, (module, shape) in list(models().items())[: 1 if smallest else None]:
            plain, frozen = Path(name) / "plain.ts", Path(name) / "frozen.ts"
            scripted = torch.jit.script(module.eval())
            torch.jit.save(scripted, str(plain))
            torch.jit.save(torch.jit.freeze(scripted), str(frozen))
            ones, others = _loaded(plain), _loaded(frozen)
            ratios, difference = [], 0.0
            for batch in BATCHES:
                x = torch.randn(batch, *shape)
                ratios.append(_faster(ones, others, x, rounds))
                difference = max(difference, float((ones(x) - others(x)).abs().max()))
            sizes = " | ".join(f"{path.stat().st_size / 1e6:.2f}" for path in (plain, frozen))
            print(f"| {what} | {sizes} | {' | '.join(f'{r:.2f}' for r in ratios)} | {difference:.1e} |", flush=True)
    return 0


def _loaded(path: Path) -> nn.Module:
    module: nn.Module = torch.jit.load(str(path))  # type: ignore[no-untyped-call]
    return module.eval()


def _faster(plain: nn.Module, frozen: nn.Module, x: torch.Tensor, rounds: int) -> float:
    """CPU time of the one / of the other."""
    for _ in range(WARM_UP):
        started = time.thread_time()
        plain(x), frozen(x)
        seconds = (time.thread_time() - started) / 2
    calls = max(1, round(BLOCK_S / max(seconds, 1e-7)))
    ratios = []
    for _ in range(rounds):
        spent = []
        for module in (plain, frozen):
            started = time.thread_time()
            for _ in range(calls):
                module(x)
            spent.append(time.thread_time() - started)
        ratios.append(spent[0] / spent[1])
    return statistics.median(ratios)


if __name__ == "__main__":
    sys.exit(main())
