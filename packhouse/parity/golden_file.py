"""Cases in a file: what went in, what the trained model answered, in fp32 and in float64.

`golden.safetensors` of every release is such a file, so that a release can be proven again without the model's class.
Tensors are named `<case>.in.<input>`, `<case>.out.<output>` and `<case>.f64.<output>`; `cases` in the metadata holds
the names, the order and the yardsticks, so that a part of the cases is judged as all of them were.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from packhouse.digest import MiB, canonical_json
from packhouse.errors import ReleaseInvalid
from packhouse.formats.arrays import Array
from packhouse.parity.judge import Case
from packhouse.parity.rounding import Error, Yardstick
from packhouse.weights.safetensors_codec import open_mapped, read_numpy, write_numpy

GOLDEN_BYTES = 4 * MiB
"""A release carries golden cases up to this size together, and at least those that prove something of each output."""


def write_cases(path: Path, cases: Sequence[Case]) -> None:
    """Law: read_cases gives back equal cases in the same order; an `exact` without outputs comes back as None."""
    tensors: dict[str, Array] = {}
    index = []
    for number, case in enumerate(cases):
        exact = case.exact or {}
        tensors |= {f"{number}.in.{name}": array for name, array in case.inputs.items()}
        tensors |= {f"{number}.out.{name}": array for name, array in case.expected.items()}
        tensors |= {f"{number}.f64.{name}": array for name, array in exact.items()}
        entry: dict[str, Any] = {"name": case.name, "real": case.real}
        entry |= {"in": list(case.inputs), "out": list(case.expected), "f64": list(exact)}
        if case.yardsticks is not None:
            entry["yardsticks"] = {name: _document(stick) for name, stick in case.yardsticks.items()}
        index.append(entry)
    write_numpy(path, tensors, {"cases": canonical_json(index).decode()})


def read_cases(path: Path) -> tuple[Case, ...]:
    """Raises ReleaseInvalid: the file is readable but holds no cases, or others than its index says."""
    metadata = open_mapped(path).header.metadata
    tensors = read_numpy(path)
    try:
        cases = tuple(
            Case(
                name=str(entry["name"]),
                inputs={name: tensors[f"{number}.in.{name}"] for name in entry["in"]},
                expected={name: tensors[f"{number}.out.{name}"] for name in entry["out"]},
                exact={name: tensors[f"{number}.f64.{name}"] for name in entry["f64"]} or None,
                real=bool(entry["real"]),
                yardsticks=_yardsticks(entry),
            )
            for number, entry in enumerate(json.loads(metadata["cases"]))
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ReleaseInvalid(
            "PH-0109 is not a file of cases", where=path.name, got=f"{type(error).__name__}: {error}"
        ) from error
    if not cases:
        raise ReleaseInvalid("PH-0108 holds no cases", where=path.name)
    for case in cases:
        if case.yardsticks is not None and (missing := sorted(case.floating - case.yardsticks.keys())):
            raise ReleaseInvalid(
                "PH-0110 holds no yardstick of an output", where=f"{path.name}: {case.name}: {missing[0]}"
            )
    return cases


def _document(stick: Yardstick) -> dict[str, object]:
    rounding = [stick.rounding.max, stick.rounding.rms] if stick.rounding else None
    return {"scale": stick.scale, "rounding": rounding, "torn": stick.torn}


def _yardsticks(entry: Mapping[str, Any]) -> dict[str, Yardstick] | None:
    """None: packhouse wrote no yardsticks yet when this file was made."""
    if "yardsticks" not in entry:
        return None
    return {str(name): _yardstick(document) for name, document in entry["yardsticks"].items()}


def _yardstick(document: Mapping[str, Any]) -> Yardstick:
    rounding = document["rounding"]
    if rounding is not None:
        largest, mean = rounding
        return Yardstick(_size(document["scale"]), Error(_size(largest), _size(mean)), bool(document["torn"]))
    return Yardstick(_size(document["scale"]), None, bool(document["torn"]))


def _size(value: Any) -> float:
    if not 0 < value < math.inf:
        raise ValueError(f"{value} is no size")
    return float(value)


def golden(cases: Iterable[Case], *, limit: int = GOLDEN_BYTES) -> tuple[Case, ...]:
    """The cases that a release carries: in order, those that still fit into `limit` bytes; and in any case, for each
    output, the smallest one that has values there. Deterministic."""
    every = list(cases)
    chosen = _needed(every)
    used = sum(_bytes(every[place]) for place in chosen)
    for place, case in enumerate(every):
        if place not in chosen and used + _bytes(case) <= limit:
            chosen.add(place)
            used += _bytes(case)
    return tuple(every[place] for place in sorted(chosen))


def _needed(cases: Sequence[Case]) -> set[int]:
    """Nothing compared is nothing proven: an output must not be empty in all of them."""
    smallest = sorted(range(len(cases)), key=lambda place: _bytes(cases[place]))
    firsts = (next((n for n in smallest if cases[n].expected[name].size), None) for name in cases[0].expected)
    return {place for place in firsts if place is not None} or {smallest[0]}


def _bytes(case: Case) -> int:
    return sum(array.nbytes for part in (case.inputs, case.expected, case.exact or {}) for array in part.values())
