"""Runs a format on every probe and hands its answers to the judge."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from packhouse.cases import golden, read_cases
from packhouse.errors import without_paths
from packhouse.judge import (
    Absolute,
    Array,
    Case,
    Int8Gate,
    Judgement,
    Outputs,
    Quality,
    Ratio,
    Tolerance,
    has_signal,
    judge,
    judge_int8,
    quality,
    sqnr_db,
)
from packhouse.probes import read_samples
from packhouse.runtime import Runner, open_format
from packhouse.spec import Format, Gates, Spec, parse
from packhouse.tensors import read_numpy
from tasks.jobs.evaluation import evaluate


def run(*, spec: str, samples: str, format: str, model: str, cases: str, evaluation: str) -> dict[str, Any]:
    """Returns {"refusal": one line or "", "deviations": [...], "quality": {...}, "golden_sqnr_db": float | None}."""
    parsed, kind = parse(Path(spec).read_bytes()), Format(format)
    references = read_cases(Path(cases))
    base, arrays = read_numpy(Path(evaluation)), read_samples(Path(samples))
    names = [output.name for output in parsed.outputs]
    try:
        runner = open_format(kind, Path(model), outputs=names)
    except Exception as error:  # whatever a runtime says of a file that it can not load
        return {"refusal": f"does not load: {_brief(error)}", "deviations": [], "quality": {}, "golden_sqnr_db": None}
    answers, refusal = _answers(runner, references)
    if refusal:
        return {"refusal": refusal, "deviations": [], "quality": {}, "golden_sqnr_db": None}
    found, measured = _judge(parsed, kind, references, answers, runner, base, arrays)
    return {
        "refusal": found.refusal,
        "deviations": [_finite(asdict(deviation)) for deviation in found.deviations],
        "quality": _finite(asdict(measured)) if measured else {},
        "golden_sqnr_db": _golden_sqnr(references, answers) if kind.int8 and not found.refusal else None,
    }


def _judge(
    spec: Spec,
    kind: Format,
    cases: Sequence[Case],
    answers: Sequence[Outputs],
    runner: Runner,
    base: Mapping[str, Array],
    samples: Mapping[str, Array],
) -> tuple[Judgement, Quality | None]:
    found = Judgement("") if kind.int8 else judge(cases, answers, tolerance(spec.gates))
    if found.refusal:
        return found, None
    if not kind.int8 and not spec.samples.labels:
        return found, None
    scores = [output.name for output in spec.outputs if output.scores]
    labels = samples["label"].astype(np.int64) if spec.samples.labels else None
    given = evaluate(spec, samples, runner)
    count = len(next(iter(given.values())))
    if any(given.get(name) is None or given[name].shape != array.shape for name, array in base.items()):
        return Judgement("answers the evaluation samples in another shape than the model"), None
    measured = quality(base, given, scores=scores, labels=None if labels is None else labels[:count])
    if kind.int8:
        gate = Int8Gate(spec.gates.int8_accuracy_drop, spec.gates.int8_agreement, spec.gates.int8_sqnr_db)
        found = judge_int8(cases, answers, measured, gate)
    return found, measured


def tolerance(gates: Gates) -> Tolerance:
    if gates.atol is not None and gates.rtol is not None:
        return Absolute(gates.atol, gates.rtol)
    return Ratio(gates.max_ratio, gates.rms_ratio)


def _answers(runner: Runner, cases: Sequence[Case]) -> tuple[list[Outputs], str]:
    answers = []
    for case in cases:
        try:
            answers.append(runner(case.inputs))
        except Exception as error:  # a runtime's own words: a fixed axis, an operator that is missing
            return [], f"case {case.name!r}: fails: {_brief(error)}"
    return answers, ""


def _golden_sqnr(cases: Sequence[Case], answers: Sequence[Outputs]) -> float:
    """The lowest signal-to-noise ratio of any floating output of any golden case, in dB."""
    kept = {id(case) for case in golden(cases)}
    pairs = [(case, answer) for case, answer in zip(cases, answers, strict=True) if id(case) in kept]
    found = [
        sqnr_db(array, answer[name])
        for case, answer in pairs
        for name, array in case.expected.items()
        if has_signal(array)
    ]
    return max(-200.0, min(min(found, default=200.0), 200.0))


def _finite(values: dict[str, Any]) -> dict[str, Any]:
    """JSON has neither NaN nor infinity: what does not apply becomes null."""
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}


def _brief(error: Exception) -> str:
    """Without paths: the verdict is digested, and the model lies elsewhere on every machine."""
    words = without_paths(" ".join(str(error).split()))
    return f"{type(error).__name__}: {words[:300]}"
