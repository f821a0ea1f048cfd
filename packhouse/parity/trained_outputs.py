"""The trained model's own answers: what it said, where it was trained, to its first evaluation samples.

They travel among the samples as `answer.<output>`. A worker builds the model anew from the registry, and without them
could compare it only with itself: another number of heads, another activation or eps leaves every shape as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from packhouse.digest import MiB
from packhouse.errors import ParityRefused, SamplesInvalid
from packhouse.formats.arrays import Array, Outputs
from packhouse.parity.judge import Case, Ratio, judge, judge_one
from packhouse.parity.probes import ANSWER, Probe, probes
from packhouse.spec.model import Output, Spec

MAX_ROWS = 16
MAX_BYTES = 4 * MiB
"""Of answers in a source; but those to the smallest batch, or to one sample, are there whatever their size."""

ANOTHER_ROUNDING = 0.01
"""Part of an integer or boolean output that may differ: where two scores are as good as equal, the rounding of another
machine decides."""


def answer(spec: Spec, samples: Mapping[str, Array], run: Callable[[Mapping[str, Array]], Outputs]) -> dict[str, Array]:
    """The tensors for the samples file: the answers to the largest batch that fits, or to the first single samples."""
    asked = _asked(spec, samples)
    if spec.batch is None:
        answers = [run(probe.inputs) for probe in asked]
        alike = [each for each in answers if _shapes(each) == _shapes(answers[0])]
        fitting = max(1, MAX_BYTES // max(1, _bytes(answers[0])))
        stacked = alike[:fitting] if len(alike) == len(answers) else answers[:1]
        return {f"{ANSWER}{name}": np.stack([each[name] for each in stacked]) for name in answers[0]}
    for probe in reversed(asked if any(spec.batch in output.shape for output in spec.outputs) else asked[:1]):
        given = run(probe.inputs)
        if _bytes(given) <= MAX_BYTES:
            break
    return {f"{ANSWER}{name}": array for name, array in given.items()}


def cases(spec: Spec, samples: Mapping[str, Array]) -> tuple[Case, ...]:
    """What the trained model answered, each under the name of the probe that asked it; none where the source has no
    answers. Raises SamplesInvalid: they do not fit the spec."""
    if not any(name.startswith(ANSWER) for name in samples):
        return ()
    for output in spec.outputs:
        _check(spec, output, samples)
    given = {output.name: samples[f"{ANSWER}{output.name}"] for output in spec.outputs}
    asked = _asked(spec, samples)
    if spec.batch is None:
        count = {len(array) for array in given.values()}
        if len(count) != 1 or not 1 <= max(count) <= len(asked):
            raise _misfit(spec, "answers", f"{sorted(count)} samples", f"as many of each output, 1 to {len(asked)}")
        return tuple(
            Case(probe.name, probe.inputs, {name: array[number] for name, array in given.items()}, None, real=True)
            for number, probe in enumerate(asked[: max(count)])
        )
    rows = {
        given[output.name].shape[output.shape.index(spec.batch)]
        for output in spec.outputs
        if spec.batch in output.shape
    }
    sizes = {_size(probe): probe for probe in asked}
    if len(rows) > 1 or not rows <= sizes.keys():
        raise _misfit(spec, "answers", f"{sorted(rows)} rows", f"the same of each output, one of {sorted(sizes)}")
    probe = sizes[rows.pop()] if rows else asked[0]
    return (Case(probe.name, probe.inputs, given, None, real=True),)


def difference(trained: Case, built: Case) -> str:
    """Why these are not the answers of the model that was trained, in one clause; empty where they are.

    built: the answers of the same architecture, weights and inputs, perhaps by another machine, whose fp32 rounds
    otherwise; its yardsticks, where it has any, tell how much rounding this model has."""
    if list(built.expected) != list(trained.expected):
        return f"outputs are {', '.join(built.expected)}, were {', '.join(trained.expected)}"
    for name, want in trained.expected.items():
        got = built.expected[name]
        if want.dtype != got.dtype or want.shape != got.shape:
            return f"output {name!r} is {got.dtype} {got.shape}, was {want.dtype} {want.shape}"
        if want.size and not _same(name, trained, built):
            return _worst(trained.name, name, want, got)
    return ""


def refusal(architecture: str, words: str) -> ParityRefused:
    return ParityRefused(
        f"PH-0102 does not answer as the trained model did: {words}",
        where=f"architecture {architecture!r} built here",
        next="register the class that was trained, and stage the arguments that it was made with",
    )


def _same(name: str, trained: Case, built: Case) -> bool:
    want, got = trained.expected[name], built.expected[name]
    if name not in trained.floating:
        return int(np.count_nonzero(want != got)) <= ANOTHER_ROUNDING * want.size
    if not judge([replace(trained, expected={name: want})], [{name: got}], Ratio()).refusal:
        return True
    return bool(built.yardsticks) and not judge_one(replace(built, expected={name: got}), {name: want}, Ratio()).refusal


def _worst(case: str, name: str, want: Array, got: Array) -> str:
    exactly = not np.issubdtype(want.dtype, np.inexact)
    off = (want != got).astype(np.float64) if exactly else np.abs(want.astype(np.float64) - got.astype(np.float64))
    off = np.where(np.isfinite(off), off, np.inf)
    place = np.unravel_index(int(np.argmax(off)), off.shape)
    row = case if case.startswith("sample ") else f"row {place[0]}" if place else case
    if exactly:
        return f"output {name!r} differs in {np.count_nonzero(off)} of {off.size} values, first in {row}"
    return f"output {name!r} of {row} is off by {off[place]:.3g}, where the trained model said {want[place]:.3g}"


def _asked(spec: Spec, samples: Mapping[str, Array]) -> list[Probe]:
    """Probes that every worker asks too: batches from the smallest up to MAX_ROWS rows, or the first single samples."""
    begins = f"{spec.batch} " if spec.batch else "sample "
    found: list[Probe] = []
    for probe in probes(spec, samples):
        if not probe.name.startswith(begins) or (found and spec.batch and _size(probe) > MAX_ROWS):
            break
        found.append(probe)
    return found


def _size(probe: Probe) -> int:
    return len(next(iter(probe.inputs.values())))


def _check(spec: Spec, output: Output, samples: Mapping[str, Array]) -> None:
    """dtype, shape, finiteness."""
    name = f"{ANSWER}{output.name}"
    if name not in samples:
        raise _misfit(spec, name, "nothing", "an answer of every output, or of none")
    array = samples[name]
    shape = output.shape if spec.batch else ("samples", *output.shape)
    fits = array.ndim == len(shape) and all(
        isinstance(want, str) or want == size for want, size in zip(shape, array.shape, strict=True)
    )
    if not fits or array.dtype != np.dtype(output.dtype.value):
        want = f"{output.dtype.value} ({', '.join(map(str, shape))})"
        raise _misfit(spec, name, f"{array.dtype} {array.shape}", want)
    if np.issubdtype(array.dtype, np.inexact) and not np.all(np.isfinite(array)):
        raise _misfit(spec, name, "NaN or infinity", "finite numbers")


def _misfit(spec: Spec, name: str, got: str, want: str) -> SamplesInvalid:
    what = "PH-0101 the trained model's answer does not fit the spec"
    return SamplesInvalid(what, where=f"{spec.samples.file}: {name}", got=got, want=want)


def _shapes(answers: Outputs) -> list[tuple[int, ...]]:
    return [array.shape for array in answers.values()]


def _bytes(answers: Outputs) -> int:
    return sum(array.nbytes for array in answers.values())
