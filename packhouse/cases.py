"""Cases in a file: what went in, what the trained model answered, in fp32 and in float64.

`golden.safetensors` of every release is such a file, so that a release can be proven again without the model's class.
Tensors are named `<case>.in.<input>`, `<case>.out.<output>` and `<case>.f64.<output>`; `cases` in the metadata holds
the names and the order.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from packhouse.digest import MiB, canonical_json
from packhouse.errors import ReleaseInvalid
from packhouse.judge import Array, Case
from packhouse.tensors import open_mapped, read_numpy, write_numpy

GOLDEN_BYTES = 4 * MiB
"""A release carries golden cases up to this size together, and at least one."""


def write_cases(path: Path, cases: Sequence[Case]) -> None:
    """Law: read_cases gives back equal cases in the same order; an `exact` without outputs comes back as None."""
    tensors: dict[str, Array] = {}
    index = []
    for number, case in enumerate(cases):
        exact = case.exact or {}
        tensors |= {f"{number}.in.{name}": array for name, array in case.inputs.items()}
        tensors |= {f"{number}.out.{name}": array for name, array in case.expected.items()}
        tensors |= {f"{number}.f64.{name}": array for name, array in exact.items()}
        names = {"in": list(case.inputs), "out": list(case.expected), "f64": list(exact)}
        index.append({"name": case.name, "real": case.real, **names})
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
            )
            for number, entry in enumerate(json.loads(metadata["cases"]))
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ReleaseInvalid(
            "is not a file of cases", where=path.name, got=f"{type(error).__name__}: {error}"
        ) from error
    if not cases:
        raise ReleaseInvalid("holds no cases", where=path.name)
    return cases


def golden(cases: Iterable[Case], *, limit: int = GOLDEN_BYTES) -> tuple[Case, ...]:
    """The cases that a release carries: in order, those that still fit into `limit` bytes, and the smallest in any
    case. Deterministic."""
    every = list(cases)
    chosen, used = [], 0
    for case in every:
        if used + _bytes(case) <= limit:
            chosen.append(case)
            used += _bytes(case)
    return tuple(chosen or [min(every, key=_bytes)])


def _bytes(case: Case) -> int:
    return sum(array.nbytes for part in (case.inputs, case.expected, case.exact or {}) for array in part.values())
