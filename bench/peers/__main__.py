"""packhouse side by side with Model Navigator, Olive and optimum: `make bench-peers`, or `python -m bench.peers`.

Each is installed into a cache folder, given the same models, and run in processes of its own. Three tables: planted
faults, seconds and memory, INT8. Words on stderr. Parts: `python -m bench.peers faults costs int8`.
`--smallest`: packhouse alone, a healthy exporter and one planted fault; nothing is installed.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import tempfile
import warnings
from pathlib import Path

import torch

from bench.api import prefect_api
from bench.peers import costs, int8, refusals
from bench.peers.given import BERT, CAUSAL, DIGITS, UNTRAINED, make
from bench.peers.install import CanNot
from bench.peers.tools import PEERS
from tasks.jobs.measure import processor

PARTS = ("faults", "costs", "int8")


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench.peers", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("parts", nargs="*", default=list(PARTS), metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--smallest", action="store_true", help="packhouse alone, and one planted fault")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.smallest:
        _smallest()
    else:
        _all(options.parts)
    print(f"{processor()}, {os.cpu_count()} cores")
    return 0


def _smallest() -> None:
    with tempfile.TemporaryDirectory(prefix="packhouse-bench-") as name, prefect_api(Path(name)) as api:
        model = make(refusals.FIRST, Path(name) / "given")
        _show(refusals.smallest(model, Path(name) / "faults", api))
    print("NOT RUN: the peers, which are not installed for so little")


def _all(parts: list[str]) -> None:
    with tempfile.TemporaryDirectory(prefix="packhouse-bench-") as name:
        folder = Path(name)
        models = {kind: make(kind, folder / "given" / kind) for kind in (*DIGITS, *UNTRAINED, BERT, CAUSAL)}
        for peer in PEERS:
            try:
                peer.place()
            except CanNot as error:
                print(f"{peer.name}: {error}", file=sys.stderr)
        with prefect_api(folder) as api:
            if "faults" in parts:
                _show(refusals.table(models, folder / "faults", api))
            if "costs" in parts or "int8" in parts:
                made = costs.run(models, folder / "costs", api)
                _show(costs.table(made))
                if "int8" in parts:
                    _show(int8.table(models, made, folder / "int8"))


def _show(rows: list[str]) -> None:
    print("\n".join(rows), flush=True)
    print(flush=True)


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    logging.disable(logging.CRITICAL)
    sys.exit(main())
