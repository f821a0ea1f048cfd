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
from bench.peers.tools import NAVIGATOR, OLIVE, OPTIMUM, packhouse

REFUSED, SAID, SILENT, RIGHT = "refused", "shipped, with a warning", "shipped", "shipped, and right"
MODELS = {"branch": "a branch on the data, which a trace loses", "counts": "state changed in forward"}
MODELS |= {"noise": "random numbers in forward"}
CAN_NOT = "can not: takes no module of one's own"
AT_ONCE = 2
FIRST = "transformer"
SMALLEST = "sign_turned"


@dataclass(frozen=True)
class Column:
    """run: models, each with a fault or "" -> what was said of each, in order."""

    title: str
    subject: str
    run: Callable[[list[tuple[Given, str]]], list[Answer]]
    any_module: bool = True


def table(models: dict[str, Given], folder: Path, api: str) -> list[str]:
    columns = [
        Column("packhouse", FIRST, lambda asked: _ours(asked, folder / "packhouse", api)),
        Column("Model Navigator", FIRST, lambda asked: NAVIGATOR.run_all(asked, folder / "navigator")[0]),
        Column("Olive", FIRST, lambda asked: OLIVE.run_all(asked, folder / "olive")[0]),
        Column("Olive, causal LM", CAUSAL, lambda asked: OLIVE.run_all(asked, folder / "causal")[0], any_module=False),
        Column("optimum", BERT, lambda asked: OPTIMUM.run_all(asked, folder / "optimum")[0], any_module=False),
    ]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        cells = list(pool.map(lambda column: _cells(column, models), columns))
    return _rows(columns, cells)


def smallest(given: Given, folder: Path, api: str) -> list[str]:
    """packhouse's answer to a healthy exporter and to one broken one."""
    column = Column("packhouse", FIRST, lambda asked: _ours(asked, folder, api, "smallest"))
    healthy, broken = column.run([(given, HEALTHY), (given, SMALLEST)])
    cells = [_healthy(healthy), _spoiled(column, given, healthy, SMALLEST, broken)]
    rows = zip(("none: the healthy twin", SMALLEST.replace("_", " ")), cells, strict=True)
    return ["| planted | packhouse |", "|---|---|", *(f"| {planted} | {cell} |" for planted, cell in rows)]


def _ours(asked: list[tuple[Given, str]], out: Path, api: str, formats: str = "onnx") -> list[Answer]:
    """In one process, as a worker does; each export in a child of its own, which the fault is planted in."""
    words = [str(given.folder) + (f":{fault}" if fault else "") for given, fault in asked]
    return packhouse(api, out, formats, *words)[0]


def _cells(column: Column, models: dict[str, Given]) -> list[str]:
    given = models[column.subject]
    asked = [(given, fault) for fault in FAULTS] + [(models[kind], "") for kind in MODELS if column.any_module]
    try:
        healthy, *others = column.run(asked)
    except CanNot as error:
        return [f"can not: {error}"] * (len(FAULTS) + len(MODELS))
    cells = [_healthy(healthy)]
    for (subject, fault), said in zip(asked[1:], others, strict=True):
        _tell(column, subject.kind, fault, said)
        cells.append(_spoiled(column, given, healthy, fault, said) if fault else _model(subject, said))
    return cells + [CAN_NOT] * (len(FAULTS) + len(MODELS) - len(cells))


def _healthy(said: Answer) -> str:
    return f"**refused**: {said.refused[:80]}" if said.refused else f"**{SAID}**" if said.warned else SILENT


def _spoiled(column: Column, given: Given, healthy: Answer, fault: str, said: Answer) -> str:
    if said.refused:
        return REFUSED
    if not healthy.refused and not judged.differ(given, healthy.files["onnx"], said.files["onnx"]):
        raise SystemExit(f"{column.title}: {fault} was not in the file that was shipped")
    return SAID if said.warned else SILENT


def _model(given: Given, said: Answer) -> str:
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
