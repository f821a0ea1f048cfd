"""The reference: what the trained model itself answers, in fp32 and in float64, to every probe."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from packhouse.cases import write_cases
from packhouse.errors import ParityRefused, SpecInvalid
from packhouse.judge import Array, Case, Outputs
from packhouse.probes import Probe, check_samples, probes, read_samples
from packhouse.runtime import Runner, torch_runner
from packhouse.spec import Spec
from packhouse.tensors import write_numpy
from tasks.jobs import model as models
from tasks.jobs.evaluation import evaluate
from tasks.jobs.exporters import first_line


def run(*, spec: str, weights: str, samples: str, cases: str, evaluation: str) -> dict[str, Any]:
    """Writes the probes with the model's answers to `cases`, and its answers to all evaluation samples to
    `evaluation`. Returns {"cases", "notes"}.

    Raises SamplesInvalid; SpecInvalid: the model does not answer as the spec declares; ParityRefused: it is not
    deterministic, or answers one of its own samples with NaN.
    """
    parsed = models.read_spec(spec)
    arrays = read_samples(Path(samples))
    check_samples(parsed, arrays)
    module = models.load(parsed, weights)
    runner = torch_runner(module, [output.name for output in parsed.outputs])
    notes: list[str] = []
    asked, expected = _answers(parsed, arrays, runner, notes)
    write_numpy(Path(evaluation), dict(evaluate(parsed, arrays, runner)))
    exact = _exact(module, parsed, asked, expected, notes)
    made = [
        Case(probe.name, probe.inputs, answer, truth, probe.real)
        for probe, answer, truth in zip(asked, expected, exact, strict=True)
    ]
    write_cases(Path(cases), made)
    return {"cases": [case.name for case in made], "notes": notes}


def _answers(
    spec: Spec, samples: Mapping[str, Array], runner: Runner, notes: list[str]
) -> tuple[list[Probe], list[Outputs]]:
    asked: list[Probe] = []
    expected: list[Outputs] = []
    for probe in probes(spec, samples):
        try:
            answer = runner(probe.inputs)
        except Exception as error:  # the model's own code; on a declared size it must not fail
            if probe.real:
                raise SpecInvalid(
                    f"the model fails on {probe.name!r}: {first_line(error)}",
                    where="axes",
                    next="correct the axis's min and max, or the model",
                ) from error
            notes.append(f"probe {probe.name!r} dropped: the model fails on it")
            continue
        if not asked:
            _check_declared(spec, answer)
            _check_deterministic(answer, runner(probe.inputs))
        if broken := _not_finite(answer):
            if probe.real:
                raise ParityRefused(f"the trained model answers {probe.name!r} with NaN or infinity", where=broken)
            notes.append(f"probe {probe.name!r} dropped: the model answers it with NaN or infinity")
            continue
        asked.append(probe)
        expected.append(answer)
    return asked, expected


def _exact(
    module: torch.nn.Module, spec: Spec, asked: list[Probe], expected: list[Outputs], notes: list[str]
) -> list[Outputs | None]:
    """The model's answers in float64, from the same fp32 weights. None for all where it can not run in double."""
    floating = {name for name, array in expected[0].items() if np.issubdtype(array.dtype, np.inexact)}
    names = [output.name for output in spec.outputs]
    try:
        in_double = torch_runner(lambda *inputs: doubled(*map(_to_double, inputs)), names)
        doubled = module.double()
        exact: list[Outputs | None] = []
        for probe, answer in zip(asked, expected, strict=True):
            truth = {name: array for name, array in in_double(probe.inputs).items() if name in floating}
            if any(truth[name].shape != answer[name].shape or truth[name].dtype != np.float64 for name in floating):
                raise TypeError("it answers in another shape or precision")
            exact.append(truth)
    except Exception as error:  # any model may refuse float64; the judge has a rule for that
        notes.append(f"no float64 reference: {first_line(error)}")
        return [None] * len(asked)
    return exact


def _to_double(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.double() if tensor.is_floating_point() else tensor


def _check_declared(spec: Spec, answer: Outputs) -> None:
    declared = [output.name for output in spec.outputs]
    if list(answer) != declared:
        raise SpecInvalid(
            "the model has another number of outputs", where="outputs", got=str(len(answer)), want=str(len(declared))
        )
    for output in spec.outputs:
        got = answer[output.name]
        fits = got.ndim == len(output.shape) and all(
            isinstance(want, str) or want == size for want, size in zip(output.shape, got.shape, strict=True)
        )
        if not fits or got.dtype != np.dtype(output.dtype.value):
            raise SpecInvalid(
                "the model answers otherwise than declared",
                where=f"outputs.{output.name}",
                got=f"{got.dtype} {got.shape}",
                want=f"{output.dtype.value} ({', '.join(map(str, output.shape))})",
            )


def _check_deterministic(first: Outputs, second: Outputs) -> None:
    for name, array in first.items():
        if array.shape != second[name].shape or not np.array_equal(
            array, second[name], equal_nan=array.dtype.kind == "f"
        ):
            raise ParityRefused(
                "the model is not deterministic: the same input gave two answers",
                where=f"outputs.{name}",
                next="take the random or stateful part out of forward",
            )


def _not_finite(answer: Outputs) -> str:
    for name, array in answer.items():
        if array.dtype.kind in "fc" and not np.all(np.isfinite(array)):
            return f"outputs.{name}"
    return ""
