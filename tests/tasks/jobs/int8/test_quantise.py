"""INT8 of ONNX: which recipe is taken, what it may look at, and what it leaves in fp32."""

from __future__ import annotations

import re
import shutil
import weakref
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest

import packhouse
from packhouse.architectures import registry
from packhouse.digest import MiB
from packhouse.errors import ExportFailed
from packhouse.formats.runtime import open_format
from packhouse.spec.model import SPEC_FILE, Format, Gates, parse
from tasks import pack
from tasks.jobs import export_onnx, quantise_onnx
from tasks.jobs.int8 import calibrate
from tasks.jobs.int8 import search as int8_search
from tasks.jobs.int8.calibrate import Calibration, Seen, bounds
from tasks.jobs.int8.recipes import DYNAMIC, Ranges, Recipe
from tasks.jobs.int8.search import Search, Tried
from tasks.jobs.int8.weights import FULL, PORTABLE, in_blocks, quantised
from tasks.jobs.onnx import graph as onnx_graph
from tasks.jobs.onnx.graph import Draft
from tests.tasks.jobs.test_evaluation import Job

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # torch's own, on tracing

SMALL_BATCHES = {"ranges": {"batch": (1, 8)}}


class Made:
    """A staged source, exported and quantised."""

    def __init__(self, source: str, work: Path) -> None:
        work.mkdir(exist_ok=True)
        self.job = Job(source, work)
        self.base, self.out = work / "model.onnx", work / "model.int8.onnx"
        self.job.export(export_onnx, Format.ONNX)
        self.facts: dict[str, Any] = quantise_onnx.run(**self.job.given, model=str(self.base), out=str(self.out))

    @property
    def smaller(self) -> float:
        return self.base.stat().st_size / self.out.stat().st_size

    @property
    def operators(self) -> Counter[str]:
        return Counter(node.op_type for node in onnx.load(self.out).graph.node)

    def judged(self) -> str:
        self.job.refer()
        return str(self.job.judge(Format.ONNX_INT8)["refusal"])


def samples(rows: int = 48) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(rows, 16)).astype(np.float32)


def test_a_convolutional_model_is_quantised_by_calibrated_ranges_to_a_quarter_and_passes(staged, tmp_path):
    made = Made(staged("convolutional", inputs={"x": samples()}, **SMALL_BATCHES), tmp_path / "made")
    assert re.fullmatch(r"static min-max(, dynamic matrices)?, per channel, 7-bit weights", made.facts["recipe"])
    assert made.facts["quantised"] == {"Conv": 2, "Gemm": 1}
    assert made.operators["ConvInteger"] == 0
    assert made.smaller > 3.5
    assert made.judged() == ""


def test_a_recurrent_model_is_quantised_while_it_runs(staged, tmp_path):
    made = Made(staged("recurrent", inputs={"x": samples()}, **SMALL_BATCHES), tmp_path / "made")
    assert made.operators["DynamicQuantizeLSTM"] == 1
    assert made.operators["LSTM"] == 0
    assert made.smaller > 3
    assert made.judged() == ""


def test_an_encoder_has_its_tables_and_its_matrices_quantised(encoder, tmp_path):
    made = Made(encoder, tmp_path / "made")
    assert made.facts["quantised"]["Gather"] >= 1
    assert made.operators["MatMulInteger"] >= 8
    assert made.judged() == ""


def test_what_is_only_in_the_evaluation_samples_changes_no_byte(staged, tmp_path):
    x, seen, unseen = samples(), samples(), samples()
    unseen[-1] *= 50  # staging takes the first quarter for calibration
    seen[0] *= 50
    plain, hidden, shown = (
        Made(staged("convolutional", name=name, inputs={"x": values}, **SMALL_BATCHES), tmp_path / name).out
        for name, values in (("plain", x), ("hidden", unseen), ("shown", seen))
    )
    assert hidden.read_bytes() == plain.read_bytes()
    assert shown.read_bytes() != plain.read_bytes()


@pytest.mark.parametrize("architecture", ["convolutional", "recurrent", "outlier"])
def test_the_same_inputs_give_the_same_bytes(staged, tmp_path, architecture):
    source = staged(architecture, inputs={"x": samples()}, **SMALL_BATCHES)
    one, other = Made(source, tmp_path / "one"), Made(source, tmp_path / "other")
    assert one.out.read_bytes() == other.out.read_bytes()
    assert one.facts == other.facts
    assert sorted(path.name for path in one.out.parent.iterdir()) == ["model.int8.onnx", "model.onnx"]


def test_the_one_layer_that_hurts_goes_back_to_fp32(staged, tmp_path):
    made = Made(staged("outlier", inputs={"x": samples()}, **SMALL_BATCHES), tmp_path / "made")
    (left,) = made.facts["left"]
    kept = [node for node in onnx.load(made.out).graph.node if node.op_type in ("Gemm", "MatMul")]
    assert left in [name for node in kept for name in node.output]
    assert "middle.weight" in [name for node in kept for name in node.input]
    assert made.facts["quantised"] == {"Gemm": 3}
    assert made.judged() == ""


def test_without_restoring_that_layer_the_judge_refuses(staged, tmp_path, monkeypatch):
    monkeypatch.setattr(int8_search, "MOST_LEFT", 0.0)
    made = Made(staged("outlier", inputs={"x": samples()}, **SMALL_BATCHES), tmp_path / "made")
    assert made.facts["left"] == []
    assert made.judged().startswith("signal-to-noise ratio is ")


def test_every_recipe_that_was_not_taken_has_its_reason_in_one_line(staged, tmp_path):
    made = Made(staged("outlier", inputs={"x": samples()}, **SMALL_BATCHES), tmp_path / "made")
    taken, left, *others = made.facts["notes"]
    assert taken.startswith("recipe dynamic, per ")
    assert left.startswith("left in fp32, since they hurt most: ")
    assert len(others) == 4
    assert all(": not taken: signal-to-noise ratio is " in note and "\n" not in note for note in others)


@pytest.mark.parametrize(("bits", "smaller"), [(None, 3.0), (8, 3.0), (4, 5.0)])
def test_weights_alone_are_quantised_where_the_spec_asks_for_it(staged, tmp_path, bits, smaller):
    """In a model whose activations would be quantised otherwise."""
    options = {} if bits is None else {"formats": {"int8_weights": bits}, "gates": {"int8_sqnr_db": 10.0}}
    source = staged("linear", arguments={"hidden": 4096}, inputs={"x": samples()}, **options, **SMALL_BATCHES)
    made = Made(source, tmp_path / "made")
    assert made.facts["recipe"].startswith("dynamic" if bits is None else f"weight-only {bits}-bit")
    assert made.facts["portable"] is (bits is None)
    assert ("MatMulNBits" in made.operators) is (bits is not None)
    if bits:
        assert made.facts["notes"][0].endswith("for processors with VNNI")


PEAK_TIMES_WEIGHTS, PEAK_PLUS_BYTES = 2.5, 32 * MiB


def test_quantising_takes_no_more_memory_than_two_and_a_half_times_the_weights(sandbox, tmp_path):
    """As the line runs it, in a child; beyond what a model of some kilobytes takes there."""
    small, large = (_peak(sandbox, tmp_path / str(hidden), hidden) for hidden in (64, 4096))
    weights = (tmp_path / "4096" / "model.onnx").stat().st_size
    assert weights > 64 * MiB
    assert large - small <= PEAK_TIMES_WEIGHTS * weights + PEAK_PLUS_BYTES


def _peak(sandbox, work, hidden):
    child = work / "child"
    child.mkdir(parents=True)
    arguments = {"features": 16, "classes": 4, "hidden": hidden}
    staged = packhouse.stage(
        registry.build("examples.tabular", arguments),
        to=str(work / "source"),
        name="m",
        architecture="examples.tabular",
        arguments=arguments,
        inputs={"x": samples()},
        outputs=["y"],
        **SMALL_BATCHES,
    )
    job = Job(staged.url, work)
    job.export(export_onnx, Format.ONNX)
    given = {**job.given, "model": str(work / "model.onnx")}
    answer = sandbox.run(
        "tasks.jobs.quantise_onnx:run",
        {**given, "out": str(child / "model.int8.onnx")},
        workdir=child,
        readable=[Path(path) for path in given.values()],
    )
    assert (child / "model.int8.onnx").stat().st_size * 2 < (work / "model.onnx").stat().st_size
    return answer.peak_bytes


def test_a_gru_stays_in_fp32_and_the_notes_say_why(tmp_path):
    """What is beside it is quantised."""
    arguments = {"kind": "gru"}
    module = registry.build("peers", arguments)
    x = np.random.default_rng(0).normal(size=(48, 8, 8)).astype(np.float32)
    to, inputs = str(tmp_path / "source"), {"x": x}
    staged = packhouse.stage(
        module,
        to=to,
        name="m",
        architecture="peers",
        arguments=arguments,
        inputs=inputs,
        outputs=["y"],
        **SMALL_BATCHES,
    )
    made = Made(staged.url, tmp_path / "made")
    assert made.operators["GRU"] == 1
    assert made.facts["quantised"] == {"Gemm": 2}
    assert "GRU stays in fp32: ONNX Runtime has no integer kernel for it" in made.facts["notes"]


def test_nothing_to_quantise_is_said(staged, tmp_path):
    with pytest.raises(ExportFailed, match="has no operator that INT8 takes"):
        Made(staged("two-outputs", outputs=["one", "two"]), tmp_path / "made")


def test_a_graph_that_is_read_and_written_computes_the_same(staged, tmp_path):
    job = Job(staged("convolutional", inputs={"x": samples()}, **SMALL_BATCHES), tmp_path)
    job.export(export_onnx, Format.ONNX)
    graph = onnx_graph.read(tmp_path / "model.onnx")
    assert graph.large
    draft = Draft(graph)
    for node in graph.nodes:
        draft.keep(node)
    draft.save(tmp_path / "again.onnx")
    x = {"x": samples(8)}
    one, other = (open_format(Format.ONNX, tmp_path / name, outputs=())(x) for name in ("model.onnx", "again.onnx"))
    assert one["y"].tobytes() == other["y"].tobytes()


def test_reading_a_graph_does_not_read_its_large_tensors(staged, tmp_path):
    job = Job(staged("linear", arguments={"hidden": 4096}), tmp_path)
    job.export(export_onnx, Format.ONNX)
    graph = onnx_graph.read(tmp_path / "model.onnx")
    assert graph.model.ByteSize() < 4096 < sum(payload.size for payload in graph.large.values())


def test_calibration_keeps_the_activations_of_one_batch_alone(monkeypatch):
    alive: list[weakref.ref[np.ndarray]] = []

    def batch_by_batch(*_: Any) -> Any:
        for turn in range(20):
            assert sum(one() is not None for one in alive) <= 1
            array = np.full((64, 64), float(turn), np.float32)
            alive.append(weakref.ref(array))
            yield {"a": array}
            del array

    monkeypatch.setattr(calibrate, "activations", batch_by_batch)
    monkeypatch.setattr(calibrate, "room", lambda _: 1.0)
    found = Calibration(None, [], Path("unused"), {})  # type: ignore[arg-type]
    assert found.ranges(["a"], Ranges.MINMAX) == {"a": (0.0, 19.0)}
    alive.clear()
    low, high = found.ranges(["a"], Ranges.PERCENTILE)["a"]
    assert low == 0.0
    assert 18.0 < high <= 19.0
    assert len(alive) == 20


def test_few_calibration_samples_leave_room_for_what_they_did_not_show():
    assert [round(calibrate.room(samples), 2) for samples in (1, 16, 100, 10_000)] == [2.0, 1.25, 1.1, 1.01]


def test_a_lone_outlier_widens_min_max_and_not_the_percentile_or_entropy():
    values = np.random.default_rng(0).normal(size=100_000).astype(np.float32)
    values[0] = 40.0
    seen = Seen()
    seen.widen(values)
    seen.count(values)
    assert bounds(seen, Ranges.MINMAX)[1] == 40.0
    for method in (Ranges.PERCENTILE, Ranges.ENTROPY):
        low, high = bounds(seen, method)
        assert -6 < low < -2
        assert 2 < high < 6


@pytest.mark.parametrize("limit", [FULL, PORTABLE])
@pytest.mark.parametrize("axis", [None, 0, 1])
def test_a_weight_is_off_by_half_a_step_at_most(limit, axis):
    weight = np.random.default_rng(0).normal(size=(24, 40)).astype(np.float32)
    weight[3] = 0
    found = quantised(weight, limit=limit, axis=axis)
    scale = found.scale if axis is None else np.expand_dims(found.scale, 1 - axis)
    assert np.abs(found.values).max() == limit
    assert np.all(np.abs(found.values * scale - weight) <= scale * 0.5001)


def test_portable_weights_do_not_overflow_sixteen_bits():
    assert 2 * 255 * PORTABLE <= np.iinfo(np.int16).max < 2 * 255 * FULL


@pytest.mark.parametrize(("bits", "block"), [(4, 32), (8, 128)])
def test_blocks_give_the_weights_back(bits, block):
    weight = np.random.default_rng(0).normal(size=(5, 200)).astype(np.float32)
    made = in_blocks(weight, bits=bits, block=block)
    flat = made.packed.reshape(5, -1)
    integers = flat if bits == 8 else np.stack([flat & 15, flat >> 4], -1).reshape(5, -1)
    scale = np.repeat(made.scale.reshape(5, -1), block, axis=1)
    again = ((integers.astype(np.float32) - 2 ** (bits - 1)) * scale)[:, :200]
    assert np.all(np.abs(again - weight) <= np.abs(scale[:, :200]) * 1.0001)


def test_the_fp32_file_is_only_read(staged, tmp_path):
    job = Job(staged("linear", arguments={"hidden": 512}), tmp_path)
    job.export(export_onnx, Format.ONNX)
    kept = shutil.copyfile(tmp_path / "model.onnx", tmp_path / "kept")
    quantise_onnx.run(**job.given, model=str(tmp_path / "model.onnx"), out=str(tmp_path / "model.int8.onnx"))
    assert (tmp_path / "model.onnx").read_bytes() == kept.read_bytes()


def found(recipe: Recipe, sqnr_db: float, refusal: str = "") -> Tried:
    return Tried(recipe, frozenset(), refusal, sqnr_db, Path("unused"))


PORTABLE_TENSOR, PORTABLE_CHANNEL, FULL_TENSOR, FULL_CHANNEL = DYNAMIC


@pytest.mark.parametrize(
    ("ratios", "kept", "attempts"),
    [
        ((41.0, 60.0, 60.0, 60.0), PORTABLE_TENSOR, 1),
        ((36.0, 38.0, 60.0, 60.0), PORTABLE_CHANNEL, 2),
        ((36.0, 35.0, 60.0, 60.0), PORTABLE_TENSOR, 2),
        ((29.0, 28.0, 36.0, 34.0), FULL_TENSOR, 4),
        ((20.0, 21.0, 22.0, 24.0), FULL_CHANNEL, 4),
    ],
    ids=["ample", "more exact", "first of equals", "not portable", "keeps to the gate"],
)
def test_the_first_ample_recipe_is_kept_and_portable_ones_come_first(ratios, kept, attempts):
    search = Search.__new__(Search)
    search.spec = SimpleNamespace(gates=Gates())
    asked: list[Recipe] = []
    search.attempt = lambda recipe: (asked.append(recipe), found(recipe, ratios[DYNAMIC.index(recipe)]))[1]
    best, others = search.best(DYNAMIC)
    assert best.recipe == kept
    assert len(asked) == attempts == len(others) + 1


def test_where_samples_have_labels_no_more_answers_may_change_than_accuracy_may_fall(staged):
    source = staged("linear", labels=np.arange(24) % 4, gates={"int8_accuracy_drop": 0.03})
    spec = parse((Path(source.removeprefix("file://")) / SPEC_FILE).read_bytes())
    assert int8_search.gate(spec).agreement == pytest.approx(0.97)


@pytest.mark.parametrize(("portable", "processors"), [(True, "any"), (False, "vnni")])
def test_the_manifest_names_the_recipe_and_the_processors(portable, processors):
    file = SimpleNamespace(name=Format.ONNX_INT8.file)
    facts = {"recipe": "dynamic", "portable": portable}
    candidate = SimpleNamespace(files=(file,), format=Format.ONNX_INT8, facts=facts)
    judged = SimpleNamespace(candidate=candidate, measures={"golden_sqnr_db": 40.0})
    gated = SimpleNamespace(planned=SimpleNamespace(spec=SimpleNamespace(gates=Gates())))
    made = pack._release(gated, judged, "float32")
    assert (made.recipe, made.processors, made.computed_in) == ("dynamic", processors, "float32")
