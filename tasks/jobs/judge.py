"""Runs a format on every probe and on the evaluation samples, and hands its answers to the judge."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from packhouse.errors import without_paths
from packhouse.formats.arrays import Array, Outputs
from packhouse.formats.runtime import Runner, open_format
from packhouse.formats.table import is_int8
from packhouse.parity.golden_file import golden, read_cases
from packhouse.parity.int8_quality import Quality, Tally, has_signal, sqnr_db
from packhouse.parity.judge import (
    Case,
    Deviation,
    Int8Gate,
    Judgement,
    form,
    judge,
    judge_int8,
    judge_one,
    worst,
)
from packhouse.parity.probes import read_samples
from packhouse.parity.replay import as_judged, compare, fp32_tolerance, kept_tolerance
from packhouse.spec.model import Spec, parse
from tasks.jobs.evaluation import batches


def run(*, spec: str, samples: str, format: str, model: str, cases: str, evaluation: str) -> dict[str, Any]:
    """Returns {"refusal": one line or "", "deviations": [...], "quality": {...}, "golden_sqnr_db": float | None}."""
    parsed = parse(Path(spec).read_bytes())
    asked = Asked(parsed, read_cases(Path(cases)), read_cases(Path(evaluation)), read_samples(Path(samples)))
    found = _found(asked, format, Path(model))
    return {
        "refusal": found.refusal,
        "deviations": [_finite(asdict(deviation)) for deviation in found.deviations],
        "quality": _finite(asdict(found.quality)) if found.quality else {},
        "golden_sqnr_db": found.golden_sqnr_db,
    }


@dataclass(frozen=True)
class Asked:
    """What every format is asked. probes: with inputs. evaluation: the trained model's answers to the batches of
    samples, from the first on; their inputs come from the samples."""

    spec: Spec
    probes: Sequence[Case]
    evaluation: Sequence[Case]
    samples: Mapping[str, Array]


@dataclass(frozen=True)
class Found:
    """golden_sqnr_db: the lowest signal-to-noise ratio of the golden answers; for INT8."""

    refusal: str
    deviations: tuple[Deviation, ...] = ()
    quality: Quality | None = None
    golden_sqnr_db: float | None = None


def _found(asked: Asked, kind: str, model: Path) -> Found:
    """The golden cases come first, in a runtime that has run nothing before: just so they are asked when the release is
    verified, and TorchScript runs other kernels once it has seen the shapes."""
    try:
        outputs = [output.name for output in asked.spec.outputs]
        runner = open_format(kind, model, outputs=outputs, text=asked.spec.text)
    except Exception as error:  # whatever a runtime says of a file that it can not load
        return Found(f"does not load: {_brief(error)}")
    kept = golden(asked.probes)
    proof, refusal = _answers(runner, kept)
    others = [case for case in asked.probes if not any(case is one for one in kept)]
    rest, refusal = _answers(runner, others) if not refusal else ([], refusal)
    if refusal:
        return Found(refusal)
    given = {id(case): answer for case, answer in zip((*kept, *others), (*proof, *rest), strict=True)}
    answers = [given[id(case)] for case in asked.probes]
    found = _judged(asked, kind, answers, runner)
    if found.refusal:
        return found
    noise = _golden_sqnr(kept, proof) if is_int8(kind) else None
    later = compare(kept, proof, kept_tolerance(kind, asked.spec.gates, noise)).refusal
    return Found(f"would not verify: {later}" if later else "", found.deviations, found.quality, noise)


def _judged(asked: Asked, kind: str, answers: Sequence[Outputs], runner: Runner) -> Found:
    """INT8 is held to its gate over all evaluation samples together; an fp32 format to each batch of them by itself."""
    limit = as_judged(fp32_tolerance(asked.spec.gates))
    found = Judgement("") if is_int8(kind) else judge(asked.probes, answers, limit)
    if found.refusal:
        return Found(found.refusal, found.deviations)
    tally = Tally([output.name for output in asked.spec.outputs if output.scores])
    labels = asked.samples["label"].astype(np.int64) if asked.spec.samples.labels else None
    for batch, case in zip(batches(asked.spec, asked.samples), asked.evaluation, strict=False):
        same = batch.asked_by(asked.probes)
        try:
            answer = runner(batch.inputs) if same is None else answers[same]
        except Exception as error:  # a runtime's own words
            return Found(f"case {case.name!r}: fails: {_brief(error)}", found.deviations)
        by_itself = Judgement(form(case, answer)) if is_int8(kind) else judge_one(case, answer, limit)
        found = Judgement(by_itself.refusal, worst(found.deviations, by_itself.deviations))
        if found.refusal:
            return Found(found.refusal, found.deviations)
        right = None if labels is None else labels[batch.start : batch.start + batch.kept]
        tally.add(batch.of_samples(asked.spec, case.expected), batch.of_samples(asked.spec, answer), right)
    if is_int8(kind):
        gates = asked.spec.gates
        gate = Int8Gate(gates.int8_accuracy_drop, gates.int8_agreement, gates.int8_sqnr_db)
        found = judge_int8(asked.probes, answers, tally.quality(), gate)
    return Found(found.refusal, found.deviations, tally.quality())


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
    found = [
        sqnr_db(array, answer[name])
        for case, answer in zip(cases, answers, strict=True)
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
