"""The zoo of architectures goes through the whole line: what each becomes, or why it is refused. docs/architectures.md
has the same table, and must say the same."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from packhouse_zoo import ZOO

from flows.ends import End, Status
from flows.release import released
from infra.workshop import workshop
from packhouse.artifact import Outcome
from packhouse.manifest import PARITY, Manifest
from packhouse.releases import find
from packhouse.verify import read_manifest
from tests.flows.zoo import LIBRARY, stage

pytestmark = [pytest.mark.flow, pytest.mark.usefixtures("api")]

PAGE = Path(__file__).parents[2] / "docs" / "architectures.md"
EVERY = ("onnx", "torchscript", "program")
WITHOUT = {
    "bi-gru": {"program": "Constraints violated"},
    "elman-rnn": {"program": "Constraints violated"},
    "masked-gru": {"program": "Constraints violated"},
    "conditional": {"torchscript": "torch.jit.trace a dynamo-optimized function"},
}
"""Formats that may be left out and are, with what the reason says."""
REFUSED = {"packed-lstm": "prim::isinstance"}
"""Models of which a required format can not be made, with what the reason says."""


@pytest.fixture(scope="module")
def kinds() -> list[str]:
    found = [*ZOO, *LIBRARY]
    assert len(found) >= 50
    return found


def test_every_architecture_is_released_or_refused_for_a_true_reason_that_the_docs_name(home, tmp_path, kinds):
    urls = {stage(kind, tmp_path / "sources"): kind for kind in kinds}
    ends = {urls[end.source]: end for end in released(list(urls))}
    assert ends.keys() == set(kinds)
    wrong = [problem for kind, end in ends.items() for problem in problems(kind, end)]
    assert not wrong, "\n".join(wrong)
    rows = re.findall(r"^\| `([a-z0-9-]+)` \|", PAGE.read_text(), re.MULTILINE)
    assert sorted(rows) == sorted(kinds)


def problems(kind: str, end: End) -> list[str]:
    if kind in REFUSED:
        told = end.status is Status.REFUSED and REFUSED[kind] in end.reason
        return [] if told else [f"{kind}: is not refused for {REFUSED[kind]}: {end.line()}"]
    if end.status is not Status.RELEASED:
        return [end.line()]
    found = find(workshop().store, f"{kind}@latest")
    return [f"{kind}: {words}" for words in _formats(kind, read_manifest(found, found.record))]


def _formats(kind: str, manifest: Manifest) -> list[str]:
    passed = {v.subject for v in manifest.verdicts if v.check == PARITY and v.outcome is Outcome.PASS}
    reasons = {v.subject: v.reason for v in manifest.verdicts if v.reason}
    missing = {name: reasons.get(name, "") for name in EVERY if name not in passed}
    wanted = WITHOUT.get(kind, {})
    if missing.keys() != wanted.keys():
        return [f"has not {missing}, expected {wanted}"]
    return [f"{name}: {missing[name]}" for name, words in wanted.items() if words not in missing[name]]
