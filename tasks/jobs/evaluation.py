"""The samples of a split, batch by batch: what a model or a format is asked besides the probes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from packhouse.formats.arrays import Array, Outputs
from packhouse.parity.judge import Case
from packhouse.spec.model import Spec

MAX_EVALUATION = 2048
"""Evaluation samples that are run through every format, from the first."""

EVALUATION_BATCH = 64


@dataclass(frozen=True)
class Batch:
    """Some samples as inputs. start: the number of the first one. kept: rows that are samples; where the smallest batch
    has more, the others repeat them. Without a batch axis: one sample as it is."""

    start: int
    kept: int
    inputs: Mapping[str, Array]
    split: str = "evaluation"

    @property
    def name(self) -> str:
        last = self.start + self.kept - 1
        return f"{self.split} sample {self.start}" if self.kept == 1 else f"{self.split} samples {self.start} to {last}"

    def asked_by(self, cases: Sequence[Case]) -> int | None:
        """The place of the case that asks the very same, if there is one: nothing is computed twice."""
        return next((place for place, case in enumerate(cases) if _equal(case.inputs, self.inputs)), None)

    def of_samples(self, spec: Spec, answer: Outputs) -> dict[str, Array]:
        """The answer without what belongs to repeated rows."""
        kept = dict(answer)
        for output in spec.outputs:
            if spec.batch in output.shape:
                before = (slice(None),) * output.shape.index(spec.batch)
                kept[output.name] = answer[output.name][(*before, slice(self.kept))]
        return kept


def batches(
    spec: Spec,
    samples: Mapping[str, Array],
    *,
    split: str = "evaluation",
    most: int = MAX_EVALUATION,
    together: int = EVALUATION_BATCH,
) -> Iterator[Batch]:
    """The first `most` samples of the split in their order, each once; `together` of them in a batch, if it may be."""
    rows = {tensor.name: samples[f"{split}.{tensor.name}"][:most] for tensor in spec.inputs}
    count = len(next(iter(rows.values())))
    if spec.batch is None:
        for index in range(count):
            yield Batch(index, 1, {name: array[index] for name, array in rows.items()}, split)
        return
    axis = spec.axes[spec.batch]
    size = max(axis.min, min(axis.max, together))
    for start in range(0, count, size):
        inputs = {name: _rows(array, start, size, axis.min) for name, array in rows.items()}
        yield Batch(start, min(size, count - start), inputs, split)


def _rows(array: Array, start: int, size: int, least: int) -> Array:
    """Rows from `start`, at most `size`; repeated from there where fewer than the smallest batch are left."""
    left = array[start : start + size]
    return left if len(left) >= least else np.take(left, range(least), axis=0, mode="wrap")


def _equal(one: Mapping[str, Array], other: Mapping[str, Array]) -> bool:
    """By their bits: -0.0 is another question than 0.0."""
    return all(
        one[name].shape == array.shape and one[name].tobytes() == array.tobytes() for name, array in other.items()
    )
