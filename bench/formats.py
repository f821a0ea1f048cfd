"""INT8 of ONNX: packhouse's recipe against ONNX Runtime's own quantiser, side by side in one run.

`make bench-formats`, or `python -m bench.formats [--smallest] [MODEL ...]`. Each is quantised in a process of its
own, whose peak memory counts from after the imports. Speed: CPU time of fp32 / of INT8, one thread, interleaved, the
median of the rounds' ratios. The digits models are trained here, for seconds; the others have random weights.
"""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import nn

import packhouse
from packhouse.formats.arrays import Array
from packhouse.formats.runtime import open_format
from packhouse.parity.int8_quality import sqnr_db
from packhouse.parity.probes import read_samples
from packhouse.spec.model import SPEC_FILE, Format
from tasks.jobs.measure import processor

ROUNDS = 15
BATCHES = (1, 32)
MAKERS = ("packhouse", "onnxruntime")
SMALLEST = "digits-mlp"


class Block(nn.Module):
    """Two convolutions and a residual."""

    def __init__(self, given: int, wanted: int, stride: int) -> None:
        super().__init__()
        self.main = nn.Sequential(
            nn.Conv2d(given, wanted, 3, stride, 1, bias=False),
            nn.BatchNorm2d(wanted),
            nn.ReLU(),
            nn.Conv2d(wanted, wanted, 3, 1, 1, bias=False),
            nn.BatchNorm2d(wanted),
        )
        same = stride == 1 and given == wanted
        self.side = nn.Identity() if same else nn.Conv2d(given, wanted, 1, stride, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.relu(self.main(x) + self.side(x))


def resnet(width: int = 64) -> nn.Module:
    """As ResNet-18: (batch, 3, height, width) to (batch, 10)."""
    widths = (width, width, 2 * width, 4 * width, 8 * width)
    blocks = [
        block
        for given, wanted in itertools.pairwise(widths)
        for block in (Block(given, wanted, 1 if given == wanted else 2), Block(wanted, wanted, 1))
    ]
    stem = (nn.Conv2d(3, width, 7, 2, 3, bias=False), nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(3, 2, 1))
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8 * width, 10))


def cnn() -> nn.Module:
    """(batch, 1, 8, 8) to (batch, 10)."""
    layers = (nn.Conv2d(1, 64, 3, 1, 1), nn.ReLU(), nn.Conv2d(64, 64, 3, 1, 1), nn.ReLU(), nn.MaxPool2d(2))
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(1024, 10))


def mlp(features: int, hidden: int) -> nn.Module:
    return nn.Sequential(
        nn.Linear(features, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, 10)
    )


class Recurrent(nn.Module):
    """(batch, time, features) to (batch, 10)."""

    def __init__(self, features: int, hidden: int) -> None:
        super().__init__()
        self.steps, self.out = nn.LSTM(features, hidden, 2, batch_first=True), nn.Linear(hidden, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.as_tensor(self.out(self.steps(x)[0][:, -1]))


class Transformer(nn.Module):
    """(batch, time) of words, or (batch, time, 8), to (batch, 10)."""

    def __init__(self, words: int, width: int, layers: int) -> None:
        super().__init__()
        self.into = nn.Embedding(words, width) if words else nn.Linear(8, width)
        layer = nn.TransformerEncoderLayer(width, 4, 4 * width, dropout=0.0, batch_first=True)
        self.layers, self.out = nn.TransformerEncoder(layer, layers), nn.Linear(width, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.as_tensor(self.out(self.layers(self.into(x)).mean(1)))


@dataclass
class Model:
    module: nn.Module
    inputs: Array
    labels: Array | None = None


def digits(module: nn.Module, shape: tuple[int, ...]) -> Model:
    """Trained for some seconds on scikit-learn's handwritten digits; the inputs are those that it has not seen."""
    from sklearn.datasets import load_digits

    data = load_digits()
    order = np.random.default_rng(0).permutation(len(data.target))
    x, y = (data.images[order] / 16).astype(np.float32).reshape(-1, *shape), data.target[order]
    features, labels = torch.from_numpy(x[:900]), torch.from_numpy(y[:900])
    optimiser = torch.optim.Adam(module.parameters(), 1e-3)
    for _ in range(40):
        for rows in torch.randperm(900).split(64):  # type: ignore[no-untyped-call]
            optimiser.zero_grad()
            nn.functional.cross_entropy(module(features[rows]), labels[rows]).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
    return Model(module, x[900:], y[900:])


def _random(module: nn.Module, inputs: Array) -> Model:
    return Model(module, inputs)


def _normal(*shape: int) -> Array:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


MODELS: dict[str, Callable[[], Model]] = {
    "mlp": lambda: _random(mlp(1024, 4096), _normal(128, 1024)),
    "transformer": lambda: _random(
        Transformer(20_000, 256, 4), np.random.default_rng(0).integers(0, 20_000, (128, 32))
    ),
    "lstm": lambda: _random(Recurrent(64, 256), _normal(128, 16, 64)),
    "resnet": lambda: _random(resnet(), _normal(128, 3, 64, 64)),
    "digits-mlp": lambda: digits(mlp(64, 256), (64,)),
    "digits-transformer": lambda: digits(Transformer(0, 64, 2), (8, 8)),
    "digits-lstm": lambda: digits(Recurrent(8, 96), (8, 8)),
    "digits-cnn": lambda: digits(cnn(), (1, 8, 8)),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("models", nargs="*", default=list(MODELS))
    parser.add_argument("--smallest", action="store_true", help="one small model, one round")
    options = parser.parse_args()
    names, rounds = ([SMALLEST], 1) if options.smallest else (options.models, ROUNDS)
    print("| model | recipe | MB | smaller | faster b1 | faster b32 | dB | top-1 drop | s | peak MB |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for name in names:
        with tempfile.TemporaryDirectory(prefix="packhouse-bench-") as folder:
            for row in _rows(name, Path(folder), rounds):
                print(row, flush=True)
    print(f"\n{processor()}, {os.cpu_count()} cores, {rounds} rounds")
    return 0


def _rows(name: str, folder: Path, rounds: int) -> list[str]:
    model = _staged(name, folder)
    files = {maker: folder / f"{maker}.onnx" for maker in MAKERS}
    made = {maker: _quantised(name, maker, folder, file) for maker, file in files.items()}
    held_out = read_samples(folder / "samples.safetensors")["evaluation.x"]
    runs = {
        label: open_format(Format.ONNX, file, outputs=())
        for label, file in {"fp32": folder / "model.onnx", **files}.items()
    }
    answers = {label: run({"x": held_out})["y"] for label, run in runs.items()}
    ratios = [speeds(runs, {"x": held_out[:batch]}, rounds) for batch in BATCHES]
    size = (folder / "model.onnx").stat().st_size
    rows = []
    for maker, file in files.items():
        faster = " | ".join(f"{speed[maker]:.2f}" for speed in ratios)
        found = made[maker]
        rows.append(
            f"| {name} | {found['recipe']} | {file.stat().st_size / 1e6:.2f} | {size / file.stat().st_size:.2f} "
            f"| {faster} | {sqnr_db(answers['fp32'], answers[maker]):.1f} "
            f"| {_drop(model, answers['fp32'], answers[maker])} | {found['seconds']:.1f} "
            f"| {found['peak'] / 1e6:.0f}, {found['peak'] / size:.1f} x fp32 |"
        )
    return rows


def _staged(name: str, folder: Path) -> Model:
    """Trained or random, handed over as a training script does, and exported."""
    from tasks.jobs import export_onnx

    torch.manual_seed(0)
    model = MODELS[name]()
    model.module.eval()
    with patch("packhouse.architectures.registry.build", lambda *_: model.module):
        packhouse.stage(
            model.module,
            to=str(folder),
            name=name,
            architecture="bench",
            inputs={"x": model.inputs},
            outputs=["y"],
            labels=model.labels,
        )
        export_onnx.run(
            spec=str(folder / SPEC_FILE),
            weights=str(folder / "weights.safetensors"),
            samples=str(folder / "samples.safetensors"),
            out=str(folder / "model.onnx"),
        )
    return model


def _drop(model: Model, base: Array, candidate: Array) -> str:
    if model.labels is None:
        return ""
    labels = model.labels[-len(base) :]
    return f"{(np.mean(base.argmax(1) == labels) - np.mean(candidate.argmax(1) == labels)) * 100:.2f}"


def _quantised(name: str, maker: str, folder: Path, out: Path) -> dict[str, Any]:
    child = [sys.executable, "-m", "bench.formats", "--child", maker, name, str(folder), str(out)]
    answer = subprocess.run(child, check=True, capture_output=True, text=True).stdout
    found: dict[str, Any] = json.loads(answer.splitlines()[-1])
    return found


def _child(maker: str, name: str, folder: Path, out: Path) -> None:
    given = {"spec": str(folder / SPEC_FILE), "samples": str(folder / "samples.safetensors")}
    from tasks.jobs import quantise_onnx

    work: dict[str, Callable[[], str]] = {
        "packhouse": lambda: str(quantise_onnx.run(**given, model=str(folder / "model.onnx"), out=str(out))["recipe"]),
        "onnxruntime": lambda: _onnxruntime(name, folder, out),
    }
    before, started = _memory("VmRSS"), time.perf_counter()
    recipe = work[maker]()
    found = {
        "recipe": f"{maker}: {recipe}",
        "seconds": time.perf_counter() - started,
        "peak": _memory("VmHWM") - before,
    }
    print(json.dumps(found))


def _memory(field: str) -> int:
    """Bytes of this process: VmRSS now, VmHWM at its peak. (getrusage's peak is that of the parent too.)"""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def _onnxruntime(name: str, folder: Path, out: Path) -> str:
    """Each kind of model by the recipe of ONNX Runtime's that is best for it."""
    from onnxruntime.quantization import QuantType, quantize_dynamic, quantize_static
    from onnxruntime.quantization.calibrate import CalibrationDataReader
    from onnxruntime.quantization.shape_inference import quant_pre_process

    os.chdir(folder)
    ready = folder / "ready.onnx"
    quant_pre_process(str(folder / "model.onnx"), str(ready), skip_symbolic_shape=True)
    if "resnet" not in name and "cnn" not in name:
        taken = ["MatMul", "Gemm", "Gather", "LSTM"]
        quantize_dynamic(str(ready), str(out), op_types_to_quantize=taken, weight_type=QuantType.QInt8)
        return "dynamic"

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # the library has no types
        def __init__(self) -> None:
            self.rows = iter(read_samples(folder / "samples.safetensors")["calibration.x"])

        def get_next(self) -> dict[str, Array] | None:
            row = next(self.rows, None)
            return None if row is None else {"x": row[None]}

    quantize_static(
        str(ready),
        str(out),
        Reader(),
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )
    return "static"


def speeds(runs: dict[str, Any], inputs: dict[str, Array], rounds: int = ROUNDS) -> dict[str, float]:
    ratios: dict[str, list[float]] = {label: [] for label in runs}
    for _ in range(rounds):
        seconds = {label: _cpu(partial(run, inputs)) for label, run in runs.items()}
        for label, own in seconds.items():
            ratios[label].append(seconds["fp32"] / own)
    return {label: statistics.median(found) for label, found in ratios.items()}


def _cpu(call: Callable[[], object]) -> float:
    """Seconds a call of this thread, in which a session of one thread computes."""
    call()
    calls, started = 0, time.thread_time()
    while calls == 0 or time.thread_time() - started < 0.02:
        call()
        calls += 1
    return (time.thread_time() - started) / calls


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    logging.disable(logging.CRITICAL)
    if sys.argv[1:2] == ["--child"]:
        _child(sys.argv[2], sys.argv[3], Path(sys.argv[4]), Path(sys.argv[5]))
    else:
        sys.exit(main())
