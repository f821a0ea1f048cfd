"""Planted faults: which tool refuses them. A tool that says so and leaves the model all the same has not refused."""

from __future__ import annotations

import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from bench.peers import judged
from bench.peers.answer import Answer
from bench.peers.faults import FAULTS, HEALTHY
from bench.peers.given import BERT, CAUSAL, Given
from bench.peers.install import CanNot
from bench.peers.tools import NAVIGATOR, OLIVE, OPTIMUM, Peer, packhouse

REFUSED, SAID, SILENT, RIGHT = "refused", "shipped, with a warning", "shipped", "shipped, and right"
MODELS = {"branch": "a branch on the data, which a trace loses", "counts": "state changed in forward"}
MODELS |= {"noise": "random numbers in forward"}
AT_ONCE = 2
FIRST = "transformer"


@dataclass(frozen=True)
class Column:
    """run: a model and its fault, or "" -> what was said."""

    title: str
    subject: str
    run: Callable[[Given, str], Answer]
    any_module: bool = True


def table(models: dict[str, Given], folder: Path, api: str) -> list[str]:
    ours = _ours(models, folder / "packhouse", api)
    columns = [
        Column("packhouse", FIRST, lambda given, fault: ours[given.kind, fault]),
        Column("Model Navigator", FIRST, _alone(NAVIGATOR, folder / "navigator")),
        Column("Olive", FIRST, _alone(OLIVE, folder / "olive")),
        Column("Olive, causal LM", CAUSAL, _alone(OLIVE, folder / "olive-causal"), any_module=False),
        Column("optimum", BERT, _alone(OPTIMUM, folder / "optimum"), any_module=False),
    ]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        cells = list(pool.map(lambda column: _cells(column, models), columns))
    return _rows(columns, cells)


def _alone(peer: Peer, folder: Path) -> Callable[[Given, str], Answer]:
    def run(given: Given, fault: str) -> Answer:
        said, _ = peer.run(given, folder / f"{given.kind}-{fault}", *([fault] if fault else []))
        return said

    return run


def _ours(models: dict[str, Given], out: Path, api: str) -> dict[tuple[str, str], Answer]:
    """All in one process, as a worker does; each export in a child of its own, which the fault is planted in."""
    asked = [(FIRST, fault) for fault in FAULTS] + [(kind, "") for kind in MODELS]
    words = [str(models[kind].folder) + (f":{fault}" if fault else "") for kind, fault in asked]
    answers, _ = packhouse(api, out, "onnx", *words)
    return dict(zip(asked, answers, strict=True))


def _cells(column: Column, models: dict[str, Given]) -> list[str]:
    given = models[column.subject]
    try:
        healthy = column.run(given, HEALTHY)
        cells = [_healthy(healthy)]
        for fault in FAULTS:
            if fault != HEALTHY:
                cells.append(_spoiled(column, given, healthy, fault))
        for kind in MODELS:
            cells.append(_model(column, models[kind]) if column.any_module else "can not")
    except CanNot as error:
        cells = [f"can not: {error}"] * (len(FAULTS) + len(MODELS))
    return cells


def _healthy(said: Answer) -> str:
    return f"**refused**: {said.refused[:80]}" if said.refused else f"**{SAID}**" if said.warned else SILENT


def _spoiled(column: Column, given: Given, healthy: Answer, fault: str) -> str:
    said = column.run(given, fault)
    _tell(column, given.kind, fault, said)
    if said.refused:
        return REFUSED
    if not healthy.refused and not judged.differ(given, healthy.files["onnx"], said.files["onnx"]):
        raise SystemExit(f"{column.title}: {fault} was not in the file that was shipped")
    return SAID if said.warned else SILENT


def _model(column: Column, given: Given) -> str:
    said = column.run(given, "")
    _tell(column, given.kind, "", said)
    if said.refused:
        return REFUSED
    if given.kind == "branch" and not judged.unlike_the_model(given, said.files["onnx"]):
        return RIGHT
    return SAID if said.warned else SILENT


def _tell(column: Column, kind: str, fault: str, said: Answer) -> None:
    words = said.refused or said.warned or "nothing"
    print(f"{column.title}, {kind} {fault}: {' '.join(words.split())[:300]}", file=sys.stderr, flush=True)


def _rows(columns: list[Column], cells: list[list[str]]) -> list[str]:
    faults = [fault.replace("_", " ") for fault in FAULTS if fault != HEALTHY]
    names = ["none: the healthy twin", *faults, *MODELS.values()]
    rows = [f"| planted | {' | '.join(column.title for column in columns)} |", "|---" * (len(columns) + 1) + "|"]
    for place, name in enumerate(names):
        rows.append(f"| {name} | {' | '.join(column[place] for column in cells)} |")
    counts = [_count(column[1:]) for column in cells]
    return [*rows, f"| **wrong models: refused / with a warning / silent** | {' | '.join(counts)} |"]


def _count(cells: list[str]) -> str:
    wrong = [cells.count(kind) for kind in (REFUSED, SAID, SILENT)]
    return f"{wrong[0]} / {wrong[1]} / {wrong[2]} of {sum(wrong)}"
