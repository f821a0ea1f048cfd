"""Runs a model or a format over all evaluation samples."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from packhouse.judge import Array
from packhouse.runtime import Runner
from packhouse.spec import Spec

MAX_EVALUATION = 2048
"""Evaluation samples that are run through every format, from the first."""

EVALUATION_BATCH = 64


def evaluate(spec: Spec, samples: Mapping[str, Array], runner: Runner) -> dict[str, Array]:
    """Every output over the evaluation samples, stacked along a first axis of samples."""
    rows = {tensor.name: samples[f"evaluation.{tensor.name}"][:MAX_EVALUATION] for tensor in spec.inputs}
    count = len(next(iter(rows.values())))
    if spec.batch is None:
        answers = [runner({name: array[index] for name, array in rows.items()}) for index in range(count)]
        return {name: np.stack([answer[name] for answer in answers]) for name in answers[0]}
    axis = spec.axes[spec.batch]
    size = max(axis.min, min(axis.max, EVALUATION_BATCH))
    taken = [
        (min(size, count - start), runner({name: _rows(array, start, size, axis.min) for name, array in rows.items()}))
        for start in range(0, count, size)
    ]
    return {name: np.concatenate([answer[name][:kept] for kept, answer in taken]) for name in taken[0][1]}


def _rows(array: Array, start: int, size: int, least: int) -> Array:
    """Rows from `start`, at most `size`; repeated from there where fewer than the smallest batch are left."""
    left = array[start : start + size]
    return left if len(left) >= least else np.take(left, range(least), axis=0, mode="wrap")
