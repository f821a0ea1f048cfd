"""The zoo of architectures goes through the whole line: what each becomes, or why it is refused. docs/architectures.md
has the same table, and must say the same. `make test` releases one model of each kind, `make corpus` all of them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from packhouse_zoo import ZOO

from flows.release import released
from flows.run_result import Status
from infra.worker.context import worker_context
from packhouse.artifact import Outcome
from packhouse.release.lookup import find, read_manifest
from packhouse.release.manifest import PARITY, Manifest
from tests.support.zoo import LIBRARY, stage

PAGE = Path(__file__).parents[2] / "docs" / "architectures.md"
KINDS = (*ZOO, *LIBRARY)
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
ONE_OF_EACH_KIND = {
    "resnet": "convolutions",
    "upsampler": "resizing",
    "lstm": "recurrent",
    "bi-gru": "recurrent, without the program",
    "packed-lstm": "refused",
    "transformer-encoder": "attention, a dynamic axis",
    "cached-decoder": "several inputs and outputs, with a dynamic axis of their own",
    "wide-and-deep": "a table: numbers and a category",
    "graph-convolution": "one dynamic axis twice in an input",
    "conditional": "control flow, without TorchScript",
    "labels": "outputs of integers and booleans",
    "bert": "the transformers library",
}
"""What `make test` releases. Each of the others has operators that these have not, and none has another kind."""


def stated() -> dict[str, str]:
    """Of each model in the table of docs/architectures.md, its formats, or `refused`."""
    return dict(re.findall(r"^\| `([a-z0-9-]+)` \|.*\| ([a-z, ]+) \|$", PAGE.read_text(), re.MULTILINE))


def test_the_docs_name_every_architecture_once_with_the_formats_that_it_has():
    assert len(KINDS) >= 50
    rows = re.findall(r"^\| `([a-z0-9-]+)` \|", PAGE.read_text(), re.MULTILINE)
    assert sorted(rows) == sorted(KINDS)
    assert stated() == {kind: expected(kind) for kind in KINDS}


def expected(kind: str) -> str:
    return "refused" if kind in REFUSED else ", ".join(name for name in EVERY if name not in WITHOUT.get(kind, {}))


def test_the_models_that_are_always_released_are_of_the_zoo():
    assert ONE_OF_EACH_KIND.keys() <= set(KINDS)


long = pytest.mark.long  # 50 models take three minutes


@pytest.mark.flow
@pytest.mark.usefixtures("api")
@pytest.mark.parametrize("kind", [pytest.param(kind, marks=() if kind in ONE_OF_EACH_KIND else long) for kind in KINDS])
def test_an_architecture_is_released_or_refused_for_a_true_reason_that_the_docs_name(home, tmp_path, kind):
    (end,) = released([stage(kind, tmp_path / "sources")])
    if kind in REFUSED:
        assert end.status is Status.REFUSED, end.line()
        assert REFUSED[kind] in end.reason
        return
    assert end.status is Status.RELEASED, end.line()
    found = find(worker_context().store, f"{kind}@latest")
    assert_formats(kind, read_manifest(found, found.record))


def assert_formats(kind: str, manifest: Manifest) -> None:
    passed = {v.subject for v in manifest.verdicts if v.check == PARITY and v.outcome is Outcome.PASS}
    reasons = {v.subject: v.reason for v in manifest.verdicts if v.reason}
    assert [name for name in EVERY if name in passed] == stated()[kind].split(", "), reasons
    for name, words in WITHOUT.get(kind, {}).items():
        assert words in reasons.get(name, "")
