"""The reference: what the trained model itself answers, in fp32 and in float64, to the probes and to the samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from packhouse.digest import MiB
from packhouse.errors import ParityRefused, SpecInvalid
from packhouse.formats.arrays import Array, Outputs
from packhouse.formats.runtime import Runner, torch_runner
from packhouse.parity.golden_file import write_cases
from packhouse.parity.judge import Case, roundings, with_yardsticks
from packhouse.parity.preflight import DIFFERS_BETWEEN_CALLS, Finding, Severity, Trap, explained
from packhouse.parity.probes import Probe, check_samples, not_tried, probes, read_samples, sizes_of
from packhouse.spec.model import Spec
from tasks.jobs import model as models
from tasks.jobs import preflight, trained
from tasks.jobs.evaluation import EVALUATION_BATCH, Batch, batches
from tasks.jobs.exporters import first_line

MAX_ANSWER_BYTES = 128 * MiB
"""The model's fp32 answers to the evaluation samples are kept up to about this size, those to the first batch in any
case. In float64 they take twice as much again."""

FLOAT64_WORK = 2**33
"""So many samples times parameters are run in float64, and one batch in any case: all 2048 samples up to 4 million
parameters, 390 of a MiniLM. A float64 run costs two to four of fp32."""


def run(*, spec: str, weights: str, samples: str, cases: str, evaluation: str, program: str = "") -> dict[str, Any]:
    """Writes the probes with the model's answers to `cases`, and its answers to the evaluation samples to `evaluation`:
    one case a batch, without inputs. Both have their yardsticks. Returns {"cases", "notes", "findings", "sizes": which
    ones formats are compared at, "samples": how many the source has}.

    Raises SamplesInvalid; SpecInvalid: the model does not answer as the spec declares; ParityRefused: it is not
    deterministic, has a trap with which no release can be faithful, answers one of its own samples with NaN, or is not
    the model that was trained.
    """
    parsed = models.read_spec(spec)
    arrays = read_samples(Path(samples))
    check_samples(parsed, arrays)
    module = models.load(parsed, weights, program)
    runner = torch_runner(module, [output.name for output in parsed.outputs])
    findings, notes = preflight.look(module, parsed, arrays)
    left_out: list[str] = []
    probed = _probed(parsed, arrays, runner, findings, left_out)
    _insist(findings)
    evaluated = _evaluated(parsed, arrays, runner, probed, left_out)
    notes += left_out
    probed, evaluated = _with_float64(module, parsed, probed, evaluated, notes)
    found = roundings(probed)
    made = [with_yardsticks(case, found) for case in probed]
    batched = [with_yardsticks(entry.case, found) for entry in evaluated]
    notes += _torn(parsed, [*made, *batched])
    trained.check(parsed, arrays, made, notes)
    write_cases(Path(cases), made)
    write_cases(Path(evaluation), [replace(case, inputs={}) for case in batched])
    return {
        "cases": [case.name for case in made],
        "notes": notes,
        "findings": [finding.model_dump(mode="json") for finding in findings],
        "sizes": _sizes(parsed, [*made, *(entry.case for entry in evaluated)], left_out),
        "samples": {split: len(arrays[f"{split}.{parsed.inputs[0].name}"]) for split in ("calibration", "evaluation")},
    }


def _sizes(spec: Spec, cases: Sequence[Case], left_out: Sequence[str]) -> dict[str, Any]:
    """What the manifest says of the sizes that were compared. An axis that outputs alone have is looked at too.
    left_out: probes and samples that nothing is compared on."""
    compared = sizes_of(spec.outputs, (case.expected for case in cases))
    compared |= sizes_of(spec.inputs, (case.inputs for case in cases))
    return {"compared": compared, "by_shape": {}, "not_tried": [*not_tried(spec, compared), *left_out]}


@dataclass(frozen=True)
class Evaluated:
    """A batch of samples with the model's answer. same: the place of the probe that asks just this."""

    batch: Batch
    case: Case
    same: int | None


def _insist(findings: Sequence[Finding]) -> None:
    for finding in findings:
        if finding.severity is Severity.REFUSED:
            raise ParityRefused(f"PH-0577 {finding.what}: {finding.proof}", where=finding.where, next=finding.next)


def _probed(
    spec: Spec, samples: Mapping[str, Array], runner: Runner, findings: Sequence[Finding], left_out: list[str]
) -> list[Case]:
    probed: list[Case] = []
    for probe in probes(spec, samples):
        answer, problem = _ask(runner, probe, findings)
        if problem:
            left_out.append(f"probe {probe.name!r} dropped: {problem}")
            continue
        if not probed:
            _check_declared(spec, answer)
            _check_deterministic(answer, runner(probe.inputs), findings)
        probed.append(Case(probe.name, probe.inputs, answer, None, probe.real))
    return probed


def _ask(runner: Runner, probe: Probe, findings: Sequence[Finding] = ()) -> tuple[Outputs, str]:
    """The answer, or why there is none that proves anything. Raises SpecInvalid, ParityRefused: the inputs are real."""
    try:
        answer = runner(probe.inputs)
    except Exception as error:  # the model's own code; on a declared size it must not fail
        if probe.real:
            raise SpecInvalid(
                explained(f"the model fails on {probe.name!r}: {first_line(error)}", findings, (Trap.CUSTOM,)),
                where="axes",
                next="correct the axis's min and max, or the model",
            ) from error
        return {}, "the model fails on it"
    if broken := _not_finite(answer):
        if probe.real:
            raise ParityRefused(f"PH-0576 the trained model answers {probe.name!r} with NaN or infinity", where=broken)
        return {}, "the model answers it with NaN or infinity"
    return answer, ""


def _evaluated(
    spec: Spec, samples: Mapping[str, Array], runner: Runner, probed: Sequence[Case], left_out: list[str]
) -> list[Evaluated]:
    evaluated: list[Evaluated] = []
    size = asked = 0
    for batch in batches(spec, samples):
        if size > MAX_ANSWER_BYTES:
            break
        same = batch.asked_by(probed)
        probe = Probe(batch.name, batch.inputs, real=True)
        answer = _ask(runner, probe)[0] if same is None else probed[same].expected
        evaluated.append(Evaluated(batch, Case(batch.name, batch.inputs, answer, None, real=True), same))
        size += sum(array.nbytes for array in answer.values())
        asked += batch.kept
    if asked < (count := len(samples[f"evaluation.{spec.inputs[0].name}"])):
        left_out.append(f"evaluation: the first {asked} of {count} samples")
    return evaluated


def _with_float64(
    module: torch.nn.Module, spec: Spec, probed: list[Case], evaluated: list[Evaluated], notes: list[str]
) -> tuple[list[Case], list[Evaluated]]:
    """The same with the model's answers in float64, from the same fp32 weights: to all probes, or none where it can not
    run in double; to as many samples as FLOAT64_WORK allows."""
    most = max(EVALUATION_BATCH, FLOAT64_WORK // max(1, sum(p.numel() for p in module.parameters())))
    try:
        double = _in_double(module, spec)
        exact = [double(case) for case in probed]
    except Exception as error:  # any model may refuse float64; the judge has a rule for that
        notes.append(f"no float64 reference: {first_line(error)}")
        return probed, evaluated
    referenced, run = [], 0
    for entry in evaluated:
        truth: Outputs | None = None
        if entry.same is not None:
            truth = exact[entry.same]
        elif run < most:
            run += entry.batch.kept
            try:
                truth = double(entry.case)
            except Exception as error:
                notes.append(f"no float64 reference of {entry.case.name}: {first_line(error)}")
        referenced.append(replace(entry, case=replace(entry.case, exact=truth)))
    with_truth = [replace(case, exact=truth) for case, truth in zip(probed, exact, strict=True)]
    _check_finite([*with_truth, *(entry.case for entry in referenced)])
    if run >= most and referenced[-1].case.exact is None:
        notes.append(f"evaluation: float64 reference of {run} samples, the others are held to the fp32 answers")
    return with_truth, referenced


def _in_double(module: torch.nn.Module, spec: Spec) -> Callable[[Case], Outputs]:
    """Gives the floating outputs. The module itself is converted: there is no memory for a second one."""
    doubled = module.double()
    runner = torch_runner(lambda *inputs: doubled(*map(_to_double, inputs)), [output.name for output in spec.outputs])

    def run(case: Case) -> Outputs:
        truth = {name: array for name, array in runner(case.inputs).items() if name in case.floating}
        for name in case.floating:
            if truth[name].shape != case.expected[name].shape or truth[name].dtype != np.float64:
                raise TypeError("it answers in another shape or precision")
        return truth

    return run


def _check_finite(cases: Sequence[Case]) -> None:
    for case in cases:
        if broken := _not_finite(case.exact or {}):
            raise ParityRefused(
                f"PH-0575 the trained model's float64 run answers {case.name!r} with NaN or infinity", where=broken
            )


def _torn(spec: Spec, cases: Sequence[Case]) -> list[str]:
    """Which outputs float64 is no yardstick for."""
    notes = []
    for output in spec.outputs:
        torn = [case.name for case in cases if _is_torn(case, output.name)]
        if torn:
            notes.append(
                f"output {output.name!r}: fp32 and float64 differ by more than rounding in {len(torn)} of {len(cases)} "
                f"cases, {torn[0]!r} the first: held to the fp32 answer there"
            )
    return notes


def _is_torn(case: Case, output: str) -> bool:
    return case.yardsticks is not None and output in case.yardsticks and case.yardsticks[output].torn


def _to_double(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.double() if tensor.is_floating_point() else tensor


def _check_declared(spec: Spec, answer: Outputs) -> None:
    declared = [output.name for output in spec.outputs]
    if list(answer) != declared:
        raise SpecInvalid(
            "PH-0265 the model has another number of outputs",
            where="outputs",
            got=str(len(answer)),
            want=str(len(declared)),
        )
    for output in spec.outputs:
        got = answer[output.name]
        fits = got.ndim == len(output.shape) and all(
            isinstance(want, str) or want == size for want, size in zip(output.shape, got.shape, strict=True)
        )
        if not fits or got.dtype != np.dtype(output.dtype.value):
            raise SpecInvalid(
                "PH-0574 the model answers otherwise than declared",
                where=f"outputs.{output.name}",
                got=f"{got.dtype} {got.shape}",
                want=f"{output.dtype.value} ({', '.join(map(str, output.shape))})",
            )


def _check_deterministic(first: Outputs, second: Outputs, findings: Sequence[Finding]) -> None:
    for name, array in first.items():
        if array.shape != second[name].shape or not np.array_equal(
            array, second[name], equal_nan=array.dtype.kind == "f"
        ):
            raise ParityRefused(
                explained(
                    "the model is not deterministic: the same input gave two answers", findings, DIFFERS_BETWEEN_CALLS
                ),
                where=f"outputs.{name}",
                next="take the random or stateful part out of forward",
            )


def _not_finite(answer: Outputs) -> str:
    for name, array in answer.items():
        if array.dtype.kind in "fc" and not np.all(np.isfinite(array)):
            return f"outputs.{name}"
    return ""
