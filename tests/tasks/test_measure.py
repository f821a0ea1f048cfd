"""Latency: what is timed, which figures are told, and what the clock decides once and for all."""

from __future__ import annotations

import tomllib
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import tomli_w

from infra.worker.context import worker_context
from packhouse.artifact import SAFETENSORS, Artifact, Outcome, Verdict
from packhouse.digest import digest_bytes
from packhouse.errors import coded
from packhouse.parity.latency import Timing
from packhouse.parity.probes import MAX_CASE_ELEMENTS
from packhouse.spec.model import SPEC_FILE, Format
from tasks._support.states import Candidate, Judged, Measured
from tasks.jobs.latency import (
    Limits,
    Stint,
    batch_sizes,
    expected_s,
    inputs_of,
    percentile,
    thread_counts,
    usable_processors,
)
from tasks.measure import pays
from tests.packhouse.parity.test_probes import spec, split, values
from tests.packhouse.report.test_model import timing
from tests.tasks.cuda.test_parity_cuda import Made, made, planned

BATCHES = Limits().batches


@pytest.mark.parametrize(
    "axis, sizes",
    [
        ({"max": 64}, (1, 8, 32)),
        ({"max": 20}, (1, 8, 20)),
        ({"max": 1}, (1,)),
        ({"min": 4, "max": 16}, (4, 8, 16)),
        ({"min": 16, "max": 16}, (16,)),
        ({"min": 100, "max": 200}, (100,)),
    ],
)
def test_batch_sizes_are_moved_into_what_the_axis_allows(axis, sizes):
    batched = spec([{"name": "x", "shape": ["batch", 4]}], {"batch": axis})
    assert batch_sizes(batched, split(x=values(3, 4)), BATCHES) == sizes


def test_a_model_without_a_batch_axis_is_timed_on_one_sample_as_it_is():
    alone = spec([{"name": "x", "shape": [4]}], outputs=[{"name": "y", "shape": [3]}])
    samples = split(x=values(3, 4))
    assert batch_sizes(alone, samples, BATCHES) == (None,)
    assert np.array_equal(inputs_of(alone, samples, None)["x"], samples["evaluation.x"][0])


def test_batches_of_large_samples_stop_where_probes_do():
    wide = MAX_CASE_ELEMENTS // 10
    batched = spec([{"name": "x", "shape": ["batch", wide]}], {"batch": {"max": 64}})
    assert batch_sizes(batched, split(x=np.zeros((1, wide), np.float32)), BATCHES) == (1, 8, 10)


def test_a_batch_is_made_of_the_first_samples_and_begins_again_where_they_end():
    batched = spec([{"name": "x", "shape": ["batch", 4]}], {"batch": {"max": 64}})
    samples = split(x=values(3, 4))
    given = inputs_of(batched, samples, 8)["x"]
    assert given.shape == (8, 4)
    assert np.array_equal(given[3:6], samples["evaluation.x"])


@pytest.mark.parametrize("processors, counts", [(1, (1,)), (2, (1, 2)), (4, (1, 4)), (64, (1, 4))])
def test_formats_are_timed_on_one_thread_and_on_a_few(processors, counts):
    assert thread_counts(processors, Limits().threads) == counts


@pytest.mark.parametrize("percent, needed", [(95, 40), (99, 200)])
def test_a_percentile_is_told_only_where_two_calls_lie_beyond_it(percent, needed):
    assert percentile([1.0] * (needed - 1), percent) is None
    times = [float(number) for number in range(needed)]
    told = percentile(times, percent)
    assert told is not None
    assert len([time for time in times if time > told]) == 2


@pytest.mark.parametrize(
    "rounds, cpu_s, wall_s, over",
    [
        (7, 9.0, 9.0, False),
        (8, 0.01, 1.0, True),
        (8, 0.5, 0.5, False),
        (40, 0.05, 0.9, False),
        (40, 0.1, 0.1, True),
    ],
    ids=["too few rounds", "slow or disturbed", "fast and few rounds", "disturbed, but there is time", "enough"],
)
def test_a_stint_goes_on_until_there_is_enough_or_its_time_is_over(rounds, cpu_s, wall_s, over):
    assert Stint((8, 40), cpu_s=0.1, wall_s=1.0).over(rounds, cpu_s, wall_s) is over


def test_other_processes_cost_a_decision_no_rounds_and_more_threads_no_patience():
    limits = Limits()
    one, two = limits.other(1, block=20), limits.other(2, block=20)
    assert one.rounds[0] == limits.rounds
    assert one.wall_s == limits.patience * one.cpu_s
    assert two.rounds[0] == 1
    assert two.wall_s == limits.cell_s


def test_what_a_batch_will_take_follows_from_the_largest_one_seen():
    assert expected_s({}, 8) == 0
    assert expected_s({1: 0.5}, 8) == 4.0
    assert expected_s({1: 0.5, 8: 1.0}, 32) == 4.0
    assert expected_s({1: 0.5, 8: 1.0}, 8) == 1.0
    assert expected_s({None: 0.5}, None) == 0.5


FORMATS = (Format.ONNX, Format.TORCHSCRIPT)
THREADS = thread_counts(usable_processors(), Limits().threads)


def measured(model: Made, seconds: float) -> dict:
    """The job itself, in a child, on real files."""
    files = {entry.format.value: entry.artifact for entry in model.candidates}
    assert set(files) == set(FORMATS)
    arguments = {"spec": model.gated.spec_file, "samples": model.gated.samples, "models": files, "seconds": seconds}
    return worker_context().run("tasks.jobs.measure:run", arguments)[0].document


def test_every_format_is_timed_at_every_batch_size_and_thread_count(home, staged):
    answer = measured(made(staged("linear")), 0.5)
    timings = [Timing.model_validate(entry) for entry in answer["timings"]]
    assert {(t.format, t.batch, t.threads) for t in timings} == set(product(FORMATS, BATCHES, THREADS))
    assert len(timings) == len(FORMATS) * len(BATCHES) * len(THREADS)
    assert answer["untimed"] == []
    assert answer["processor"]
    for told in timings:
        assert told.calls >= Limits().rounds
        assert told.items_per_s == pytest.approx(told.batch / told.p50_ms * 1000)
        assert (told.p95_ms is None, told.p99_ms is None) == (told.calls < 40, told.calls < 200)
        assert told.p99_ms is None or told.p50_ms <= told.p95_ms <= told.p99_ms
        assert told.speed == (1.0 if told.threads == 1 else None), "each is its own base here"


def test_what_there_is_no_time_for_is_named_and_the_smallest_batch_is_timed_all_the_same(home, staged):
    answer = measured(made(staged("linear")), 1e-9)
    assert {(entry["batch"], entry["threads"]) for entry in answer["timings"]} == {(1, 1)}
    assert all(entry["calls"] >= Limits().first_rounds[0] for entry in answer["timings"])
    assert answer["untimed"][:2] == ["batch 8 on 1 thread", "batch 32 on 1 thread"]
    assert len(answer["untimed"]) == len(BATCHES) * len(THREADS) - 1


SLOW, FAST = 0.5, 2.0


def int8(*speeds: tuple[int, int, float | None]) -> Measured:
    """speeds: batch, threads and speed of each timing of `onnx-int8`."""
    timings = (timing(Format.ONNX_INT8, batch, threads, speed=speed) for batch, threads, speed in speeds)
    return Measured(timings=tuple(timings), processor="")


SLOWER = "is slower than onnx on this processor"
BRINGS_LITTLE = "is neither 10 % smaller than onnx nor 10 % faster on this processor"


def ends(model, measured: Measured, size: int = 30) -> str:
    """Why INT8 of this size is left out beside 100 bytes of fp32; empty if it is not."""
    judged, left_out = pays(model.gated, [entry(Format.ONNX, 100), entry(Format.ONNX_INT8, size)], measured)
    assert {each.candidate.format for each in judged} == {Format.ONNX, *([] if left_out else [Format.ONNX_INT8])}
    return coded(left_out[0].verdict.reason)[1] if left_out else ""


def entry(format: Format, size: int) -> Judged:
    made = Artifact(name=format.file, digest=digest_bytes(format.value.encode()), size=size, media_type=SAFETENSORS)
    verdict = Verdict(check="parity-cpu", subject=format.value, outcome=Outcome.PASS, compared=(made.digest,))
    candidate = Candidate(format=format, artifact=made, facts={}, seconds=0.0, peak_bytes=0)
    return Judged(candidate=candidate, verdict=verdict, measures={})


PAYS = {
    "smaller and faster": (30, int8((1, 1, FAST), (8, 1, FAST)), ""),
    "slower alone": (30, int8((1, 1, SLOW), (8, 1, FAST)), SLOWER),
    "slower in batches": (30, int8((1, 1, FAST), (8, 1, SLOW)), SLOWER),
    "slower within the margin": (30, int8((1, 1, 0.95), (1, 4, None)), ""),
    "slower beyond it": (30, int8((1, 1, 0.949)), SLOWER),
    "just smaller enough": (90, int8((1, 1, 1.0)), ""),
    "hardly smaller": (91, int8((1, 1, 1.0)), BRINGS_LITTLE),
    "just faster enough": (91, int8((1, 1, 1.1)), ""),
    "hardly faster": (91, int8((1, 1, 1.09)), BRINGS_LITTLE),
    "faster over all sizes": (99, int8((1, 1, 1.0), (8, 1, 1.1), (32, 1, 1.3)), ""),
    "faster at one size alone": (99, int8((1, 1, 0.95), (8, 1, 0.95), (32, 1, 1.2)), BRINGS_LITTLE),
    "larger and faster": (110, int8((1, 1, FAST)), ""),
    "larger and as fast": (110, int8((1, 1, 1.0)), BRINGS_LITTLE),
}


@pytest.mark.parametrize("size, measured, reason", PAYS.values(), ids=PAYS)
def test_int8_ships_where_it_is_smaller_or_faster_by_a_part_and_slower_at_no_batch_size(
    home, staged, size, measured, reason
):
    assert ends(planned(staged("linear")), measured, size) == reason


@pytest.mark.parametrize(
    "worth, size, reason", [(0.5, 50, ""), (0.5, 51, "is neither 50 % smaller"), (100, 1, "is nei")]
)
def test_the_spec_says_what_int8_has_to_be_worth(home, staged, worth, size, reason):
    found = ends(planned(staged("linear", gates={"int8_worth": worth})), int8((1, 1, 1.0)), size)
    assert found.startswith(reason)
    assert bool(found) is bool(reason)


def test_int8_that_need_not_be_worth_anything_ships_and_no_clock_is_asked(home, staged):
    assert ends(planned(staged("linear", gates={"int8_worth": 0})), int8((1, 1, SLOW)), 110) == ""
    assert not list((home / "store").rglob("decisions.json"))


OF_SCHEMA_1 = {
    "hardly smaller": ({}, 99, int8((1, 1, 1.0)), ""),
    "as large": ({}, 100, int8((1, 1, FAST)), "is not smaller than onnx"),
    "slower": ({}, 30, int8((1, 1, FAST), (8, 1, SLOW)), SLOWER),
    "within its own margin": ({"int8_speed": 0.4}, 30, int8((1, 1, SLOW)), ""),
    "beyond it": ({"int8_speed": 1.5}, 30, int8((1, 1, 1.4)), SLOWER),
}


@pytest.mark.parametrize("gates, size, measured, reason", OF_SCHEMA_1.values(), ids=OF_SCHEMA_1)
def test_a_spec_of_schema_1_keeps_its_own_rule(home, staged, gates, size, measured, reason):
    assert ends(planned(of_schema_1(staged("linear"), gates)), measured, size) == reason


def of_schema_1(source: str, gates: dict[str, float]) -> str:
    """The source with the package.toml that packhouse 0.1 would have written."""
    path = Path(source.removeprefix("file://")) / SPEC_FILE
    document = {name: table for name, table in tomllib.loads(path.read_text()).items() if name != "gates"}
    outputs = [{key: value for key, value in output.items() if key != "kind"} for output in document["outputs"]]
    path.write_text(tomli_w.dumps(document | {"schema": 1, "outputs": outputs, "gates": gates}))
    return source


@pytest.mark.parametrize("first, later", [(SLOW, FAST), (FAST, SLOW), (1.0, FAST), (FAST, 1.0)])
def test_a_second_run_of_the_same_inputs_does_not_turn_the_decision_over(home, staged, first, later):
    model = planned(staged("linear"))
    decided = ends(model, int8((1, 1, first)), 99)
    assert bool(decided) is (first != FAST)
    assert ends(model, int8((1, 1, later)), 99) == decided
