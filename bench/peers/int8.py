"""The INT8 files that the tools made of the same models, beside packhouse's own fp32 file: size, speed on one thread
(the method of bench/formats.py), signal to noise and accuracy on rows that none of them calibrated on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from bench.formats import BATCHES, speeds
from bench.peers.costs import KINDS, Made
from bench.peers.given import Given
from bench.peers.install import CanNot
from bench.peers.judged import feed
from bench.peers.tools import OLIVE, OPTIMUM
from bench.peers.with_olive import STATIC
from packhouse.formats.runtime import open_format
from packhouse.parity.int8_quality import sqnr_db
from packhouse.spec.model import Format

Rows = dict[str, np.ndarray]
HEAD = (
    "| model | INT8 of | MB | times smaller | faster b1 | faster b32 | dB | top-1 drop, points |",
    "|---|---|---|---|---|---|---|---|",
)


def table(models: dict[str, Given], made: Made, folder: Path) -> list[str]:
    rows = list(HEAD)
    for kind in KINDS:
        files, can_not = _files(models[kind], made, folder)
        rows += _measured(models[kind], made.answers["onnx", kind].files["onnx"], files)
        rows += [f"| {kind} | {label} | {why} | | | | | |" for label, why in can_not.items()]
    return rows


def _files(given: Given, made: Made, folder: Path) -> tuple[dict[str, str], dict[str, str]]:
    kind = given.kind
    files, can_not = {}, {}
    for tool, label in (("onnx", "packhouse"), (OLIVE.name, "Olive, dynamic"), (OPTIMUM.name, "optimum, dynamic")):
        said = made.answers.get((tool, kind))
        if said is None or not said.files.get("int8"):
            why = made.can_not.get((tool, kind)) or (said.refused or said.notes.get("onnx-int8", "") if said else "")
            can_not[label] = f"none: {why}"
        else:
            files[label] = said.files["int8"]
    try:
        said, _ = OLIVE.run(given, folder / f"olive-static-{kind}", STATIC)
        if said.refused:
            can_not["Olive, static"] = f"none: {said.refused[:100]}"
        else:
            files["Olive, static"] = said.files["int8"]
    except CanNot as error:
        can_not["Olive, static"] = f"can not: {error}"
    return files, can_not


def _measured(given: Given, fp32: str, files: dict[str, str]) -> list[str]:
    samples, labels = given.held_out()
    runs: dict[str, Any] = {label: _runner(file) for label, file in {"fp32": fp32, **files}.items()}
    answers = {label: next(iter(run(samples).values())) for label, run in runs.items()}
    ratios = [speeds(runs, {name: rows[:batch] for name, rows in samples.items()}) for batch in BATCHES]
    size = Path(fp32).stat().st_size
    rows = []
    for label, file in files.items():
        own = Path(file).stat().st_size
        faster = " | ".join(f"{ratio[label]:.2f}" for ratio in ratios)
        rows.append(
            f"| {given.kind} | {label} | {own / 1e6:.2f} | {size / own:.2f} | {faster} "
            f"| {sqnr_db(answers['fp32'], answers[label]):.1f} | {_drop(labels, answers['fp32'], answers[label])} |"
        )
    return rows


def _runner(file: str) -> Callable[[Rows], Mapping[str, np.ndarray]]:
    run, wanted = open_format(Format.ONNX, Path(file), outputs=()), [one.name for one in onnx.load(file).graph.input]
    return lambda rows: run(feed(wanted, rows))


def _drop(labels: np.ndarray | None, base: np.ndarray, candidate: np.ndarray) -> str:
    if labels is None:
        return ""
    return f"{(np.mean(base.argmax(1) == labels) - np.mean(candidate.argmax(1) == labels)) * 100:.2f}"
