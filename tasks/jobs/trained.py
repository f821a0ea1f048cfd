"""Trained: is the model that was built here the one that was trained? Asked with the trained model's own answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from packhouse.formats.arrays import Array
from packhouse.parity.judge import Case
from packhouse.parity.trained_outputs import cases, difference, refusal
from packhouse.spec.model import Spec


def check(spec: Spec, samples: Mapping[str, Array], built: Sequence[Case], notes: list[str]) -> None:
    """built: what the model that was built here answers to every probe, with its yardsticks.

    Raises ParityRefused: it is another model. SamplesInvalid: the source's answers do not fit its spec.
    """
    told = cases(spec, samples)
    if not told:
        notes.append("not compared with the trained model: the source has no answers of it")
    answered = {case.name: case for case in built}
    for case in told:
        if words := difference(case, answered[case.name]):
            raise refusal(spec.architecture.name, words)
