"""Parity on a real GPU: the job of tasks/jobs/parity_cuda.py on the examples' models and a wider convolution net.

`python -m bench.parity_cuda [--smallest]`, on a machine with an NVIDIA GPU, torch with CUDA and onnxruntime-gpu.
Prints the device, the settings as read back and a table. Exits with 3 where there is no CUDA device. `--device cpu`
shows that the script itself works, and proves nothing of a GPU.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from infra.worker.context import WorkerContext
    from tasks.cuda.cuda_batch import CudaCandidate

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "examples"))


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--smallest", action="store_true", help="one small model")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="packhouse-bench-") as name:
        os.environ |= {"PACKHOUSE_HOME": name, "PREFECT_LOGGING_LEVEL": "CRITICAL", "DO_NOT_TRACK": "1"}
        return measure(Path(name), options.device, 1 if options.smallest else None)


def measure(folder: Path, device: str, most: int | None) -> int:
    """most: how many of the models."""
    from infra.worker.context import worker_context
    from tasks.cuda import run_batch
    from tasks.cuda.cuda_batch import Cuda

    run_batch.DEVICE = device
    if device == "cpu":
        run_batch.may_have_gpu = lambda: True  # type: ignore[attr-defined]
    try:
        with device_in_sight(device) as shop:
            found = run_batch.look_for_gpu.fn(shop)
        if not isinstance(found, Cuda):
            print(f"NOT RUN: {found}", file=sys.stderr)
            return 3
        rows = [row for name, train in list(models().items())[:most] for row in checked(name, train, folder, device)]
    finally:
        worker_context().close()
    print("\n".join(f"- {note}" for note in found.notes))
    print("\n| model | subject | runs | reproduces | seconds of the model | notes |\n|---|---|---|---|---|---|")
    print("\n".join(f"| {' | '.join(row)} |" for row in rows))
    return 0


def device_in_sight(device: str) -> AbstractContextManager[WorkerContext]:
    from infra.worker.context import worker_context
    from infra.worker.gpu import gpu_context

    return gpu_context() if device == "cuda" else nullcontext(worker_context())


def models() -> dict[str, Callable[[str], object]]:
    from train import TRAININGS

    return {**TRAININGS, "digits-cnn-wide": wide}


def wide(to: str) -> object:
    """Convolutions that are wide enough for cuDNN's faster algorithms. Untrained, seeded."""
    import torch
    from packhouse_examples.architectures import DigitsCNN
    from train import digits

    import packhouse

    torch.manual_seed(0)
    _, images, _, _ = digits()
    return packhouse.stage(
        DigitsCNN(channels=256),
        to=to,
        name="digits-cnn-wide",
        architecture="examples.digits-cnn",
        arguments={"channels": 256},
        inputs={"image": images[:, None]},
        outputs=["logits"],
    )


def checked(name: str, train: Callable[[str], object], folder: Path, device: str) -> Iterator[tuple[str, ...]]:
    """One row a subject. Seconds: wall time of the model's child, which has all its subjects, on a warm server."""
    from tasks.cuda.run_batch import check_on_gpu

    train(str(folder / "sources" / name))
    candidate = made(str(folder / "sources" / name))
    with device_in_sight(device) as shop:
        check_on_gpu.fn(candidate, shop)  # the fork server warms up
        started = time.perf_counter()
        cuda = check_on_gpu.fn(candidate, shop)
        seconds = time.perf_counter() - started
    for subject in candidate.subjects:
        said = [
            f"{v.outcome}: {v.reason}" if v.reason else str(v.outcome) for v in cuda.verdicts if v.subject == subject
        ]
        notes = "; ".join(note.partition(": ")[2] for note in cuda.notes if note.startswith(f"{subject}: "))
        yield (name, subject, *said, f"{seconds:.1f}", notes)


def made(source: str) -> CudaCandidate:
    """The source's model as far down the line as the GPU needs it."""
    from packhouse.spec.model import Format
    from tasks._support.states import Candidate
    from tasks.cuda.cuda_batch import CudaCandidate
    from tasks.export import make
    from tasks.fetch import fetch
    from tasks.plan import plan
    from tasks.reference_outputs import reference_outputs
    from tasks.validate_weights import validate_weights

    gated = validate_weights.fn(fetch.fn(plan.fn(source)))
    files = {"spec": gated.spec_file, "weights": gated.weights, "samples": gated.samples}
    formats = [make(gated, format, files) for format in (Format.TORCHSCRIPT, Format.ONNX)]
    return CudaCandidate(
        model=gated.planned.model,
        release=gated.planned.release,
        spec_file=gated.spec_file,
        weights=gated.weights,
        cases=reference_outputs.fn(gated).cases,
        candidates=tuple((entry.format, entry.artifact) for entry in formats if isinstance(entry, Candidate)),
    )


if __name__ == "__main__":
    sys.exit(main())
