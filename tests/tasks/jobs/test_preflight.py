"""Preflight: every trap is named with its line, and a healthy model is never accused."""

from __future__ import annotations

import copy
import inspect
import re

import numpy as np
import pytest
import torch
from torch import nn

from packhouse.architectures import registry
from packhouse.parity.preflight import (
    FROZEN_BY_A_TRACE,
    MOST_FINDINGS,
    NEXT,
    Finding,
    Severity,
    Trap,
    distinct,
    explained,
)
from packhouse.spec.steps import Standard
from tasks.jobs import preflight
from tasks.jobs.preprocessing import Prepared
from tasks.jobs.state import State
from tests.packhouse.parity.test_probes import spec, split
from tests.support import faulty
from tests.support.one_line import built, found, samples, spec_of

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # torch's own

MARK = re.compile(r"# trap: (.+)$")


def models_of(*, traps: bool) -> list[type[nn.Module]]:
    every = [entry for entry in vars(faulty).values() if inspect.isclass(entry) and entry.__module__ == faulty.__name__]
    return [entry for entry in every if issubclass(entry, nn.Module) and bool(marks(entry)) is traps]


def marks(model: type[nn.Module]) -> dict[str, str]:
    """`file:line` -> the trap that is marked there."""
    lines, start = inspect.getsourcelines(model)
    found = {start + place: MARK.search(line.rstrip()) for place, line in enumerate(lines)}
    return {f"tests/support/faulty.py:{line}": match[1] for line, match in found.items() if match}


FAULTY = models_of(traps=True)
HEALTHY = [
    model for model in models_of(traps=False) if model not in (faulty.Base, faulty.NotANumber, faulty.OnlyOnCuda)
]


@pytest.mark.parametrize("model", FAULTY, ids=[model.__name__ for model in FAULTY])
def test_a_trap_is_named_with_the_line_it_is_in(model):
    assert {finding.where: finding.trap.value for finding in found(model)} == marks(model)


@pytest.mark.parametrize("model", HEALTHY, ids=[model.__name__ for model in HEALTHY])
def test_a_healthy_model_is_not_accused(model):
    assert found(model) == ()


REFUSED = {
    faulty.Counter, faulty.CountsInABuffer, faulty.LargestSoFar, faulty.FirstCallDecides, faulty.AddsToItsInput,
    faulty.WritesAColumn,
}  # fmt: skip


def test_only_what_makes_the_answers_hang_on_other_calls_is_refused():
    severe = {model for model in FAULTY if any(finding.severity is Severity.REFUSED for finding in found(model))}
    assert severe == REFUSED


def test_a_branch_is_proven_by_two_probes_that_take_different_sides():
    proofs = {model: found(model)[0].proof for model in (faulty.BranchOnItem, faulty.BranchOfEqualLines)}
    assert set(proofs.values()) == {"two probes take different sides"}


ARCHITECTURES = {
    "linear": 0, "branch": 1, "frozen-branch": 1, "late-branch": 1, "stairs": 0, "total": 0, "two-outputs": 0,
    "dict-output": 0, "tied": 0, "random": 1, "not-a-number": 0, "unbatched": 0, "crash": 0, "hang": 0,
}  # fmt: skip


@pytest.mark.parametrize("name, traps", ARCHITECTURES.items(), ids=ARCHITECTURES)
def test_the_test_architectures_have_the_traps_that_they_were_written_for(name, traps):
    shape: list[str | int] = [16] if name == "unbatched" else ["batch", 16]
    axes = {"batch": {"max": 64}} if "batch" in shape else {}
    declared = spec([{"name": "x", "shape": shape}], axes, outputs=[{"name": "y", "shape": [*shape[:-1], 4]}])
    module = registry.build(f"test.{name}", {})
    findings, notes = preflight.look(module, declared, split(x=samples(("batch", 16))))
    assert (len(findings), notes) == (traps, [])
    assert all(finding.where.startswith("packhouse_test_architectures.py:") for finding in findings)


@pytest.mark.parametrize("padded", [True, False])
@pytest.mark.parametrize("wrapped", [True, False])
def test_the_bert_of_transformers_is_not_accused_of_what_it_leaves_out_when_it_is_traced(padded, wrapped):
    config = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    module = registry.build("examples.encoder", config | {"vocab_size": 100, "max_position_embeddings": 32})
    mask = np.ones((12, 8), np.int64)
    mask[1::2, 5:] = 0 if padded else 1
    shape = {"dtype": "int64", "shape": ["batch", "time"]}
    declared = spec(
        [{"name": "ids", "range": [0, 99], **shape}, {"name": "mask", "range": [0, 1], **shape}],
        {"batch": {"max": 8}, "time": {"max": 16}},
    )
    ids = np.random.default_rng(0).integers(0, 100, (12, 8))
    named = declared.architecture.model_copy(update={"name": "examples.encoder"})
    declared = declared.model_copy(update={"architecture": named})
    model = module if wrapped else module.bert
    assert preflight.look(model, declared, split(ids=ids, mask=mask)) == ((), [])


def test_the_model_is_left_as_it_was():
    for model in (faulty.Counter, faulty.CountsInABuffer, faulty.LeavesItsState, faulty.BatchNormInTraining):
        module = built(model)
        before, attributes = copy.deepcopy(module.state_dict()), dict(vars(module))
        preflight.look(module, spec_of(("batch", 16), (("batch", 4),)), {"evaluation.x": samples(("batch", 16))})
        assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())
        assert vars(module) == attributes
        assert not any(layer.training for layer in module.modules())


def test_a_list_that_forward_appends_to_is_state_and_is_emptied_again():
    module = faulty.Base()
    module.seen = []
    state = State(module)
    module.seen.append(1)
    assert state.changed() == ["seen"]
    state.restore()
    assert module.seen == []
    assert state.changed() == []


def test_what_changes_inside_a_layer_is_named_by_its_path():
    module = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    state = State(module)
    module(torch.randn(4, 2))
    assert set(state.changed()) == {"1.running_mean", "1.running_var", "1.num_batches_tracked"}
    state.restore()
    assert torch.equal(module[1].running_mean, torch.zeros(2))


def test_a_model_that_fails_is_left_to_the_reference_with_what_was_seen_so_far():
    class Fails(faulty.Base):
        def forward(self, x):
            torch.rand(1)
            raise NotImplementedError("no kernel on the CPU")

    findings, notes = preflight.look(
        built(Fails), spec_of(("batch", 16), (("batch", 4),)), {"evaluation.x": samples(("batch", 16))}
    )
    assert [finding.trap for finding in findings] == [Trap.RANDOM]
    assert notes == ["preflight could not look: NotImplementedError: no kernel on the CPU"]


def test_an_operator_without_a_kernel_for_the_cpu_is_named():
    (finding,), (note,) = preflight.look(
        built(faulty.OnlyOnCuda), spec_of(("batch", 16), (("batch", 4),)), {"evaluation.x": samples(("batch", 16))}
    )
    assert finding.what == "the model calls the custom operator packhouse_faulty::only_on_cuda"
    assert "Could not run" in note


def test_a_trap_behind_preprocessing_is_found_in_the_model_itself():
    declared = spec_of(("batch", 16), (("batch", 4),)).model_copy(
        update={"preprocessing": (Standard(input="x", mean=(0.0,) * 16, scale=(1.0,) * 16),)}
    )
    module = Prepared(built(faulty.BranchOnItem), declared).eval()
    findings, _ = preflight.look(module, declared, {"evaluation.x": samples(("batch", 16))})
    assert {finding.where: finding.trap.value for finding in findings} == marks(faulty.BranchOnItem)


# What is made of findings


BRANCH = Finding(trap=Trap.BRANCH, what="the model branches on data", where="shop/models.py:41")


def test_a_reason_stays_one_line_and_no_reason_stays_none():
    assert explained("off", [BRANCH], FROZEN_BY_A_TRACE) == "off; the model branches on data at shop/models.py:41"
    assert explained("", [BRANCH], FROZEN_BY_A_TRACE) == ""
    assert explained("off", [], FROZEN_BY_A_TRACE) == "off"
    assert explained("off", [BRANCH], (Trap.RANDOM,)) == "off"


def test_findings_are_distinct_bounded_and_begin_with_what_is_refused():
    refused = Finding(trap=Trap.STATE, what="state", severity=Severity.REFUSED)
    many = [Finding(trap=Trap.LOOP, what="loop", where=f"a.py:{line}") for line in range(50)]
    kept = distinct([BRANCH, BRANCH, *many, refused])
    assert kept[:2] == (refused, BRANCH)
    assert len(kept) == MOST_FINDINGS


def test_every_trap_says_what_to_do():
    assert set(NEXT) == set(Trap)
