"""Tries INT8 recipes on calibration samples, and restores layers where none keeps to the gate.

Nothing here looks at a clock or at the evaluation samples: the same inputs give the same bytes, and the judge's
samples stay unseen.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import onnx

from packhouse.digest import MiB
from packhouse.formats.arrays import Array, Outputs
from packhouse.formats.runtime import open_format
from packhouse.parity.int8_quality import Noise, Quality, Tally
from packhouse.parity.judge import Case, Int8Gate, Judgement, form, judge_int8
from packhouse.spec.model import Format, Gates, Spec
from tasks.jobs.evaluation import batches
from tasks.jobs.exporters import brief
from tasks.jobs.int8.calibrate import Calibration, activations
from tasks.jobs.int8.nodes import Range, key, quantisable, rewrite, static_nodes
from tasks.jobs.int8.recipes import Recipe
from tasks.jobs.int8.static import followed
from tasks.jobs.onnx.graph import Graph

MAX_CALIBRATION = 256
"""Calibration samples that are looked at, from the first."""

CALIBRATION_BATCH = 8

MAX_ANSWER_BYTES = 64 * MiB
"""The fp32 format's answers to calibration samples are kept up to about this size."""

MARGIN_DB = 1.0
"""Above the spec's signal-to-noise ratio, since other samples will judge."""

AMPLE_DB = 10.0
"""Above the spec's signal-to-noise ratio nothing is won by looking for a more exact recipe."""

MOST_LEFT = 0.5
"""Part of the quantised nodes that may go back to fp32: beyond it little is won."""


@dataclass(frozen=True)
class Tried:
    """A recipe, without the nodes in `left`. refusal: what the gate has against it on calibration samples."""

    recipe: Recipe
    left: Set[str]
    refusal: str
    sqnr_db: float
    file: Path

    @property
    def exactness(self) -> float:
        """sqnr_db, the worst where there is none: it does not run, or has no floating output."""
        return -math.inf if math.isnan(self.sqnr_db) else self.sqnr_db

    @property
    def why(self) -> str:
        """In one line, of a recipe that was not taken."""
        return self.refusal or f"{self.sqnr_db:.1f} dB: fits, and another is more exact"


class Search:
    """graph, model: the fp32 format. work: a folder for what is tried."""

    def __init__(self, spec: Spec, samples: Mapping[str, Array], graph: Graph, model: Path, work: Path) -> None:
        self.spec, self.graph, self.model, self.work = spec, graph, model, work
        given = batches(spec, samples, split="calibration", most=MAX_CALIBRATION, together=CALIBRATION_BATCH)
        self.batches = list(given)
        self.calibration = Calibration(graph, self.batches, work / "calibration.onnx", spec.text)
        self.gate = gate(spec)
        self.answers = self._answers()
        self._files = 0

    def _answers(self) -> list[Outputs]:
        run, kept, size = open_format(Format.ONNX, self.model, outputs=(), text=self.spec.text), [], 0
        for batch in self.batches:
            kept.append(run(batch.inputs))
            size += sum(array.nbytes for array in kept[-1].values())
            if size > MAX_ANSWER_BYTES:
                break
        return kept

    def best(self, recipes: Sequence[Recipe]) -> tuple[Tried, list[Tried]]:
        """What is kept, and what was refused or passed over, in the order of trying.

        Portable recipes that do not clip first, together: the first of them that is ample; else the most exact one that
        is enough. Then those that clip, then the others likewise. Else the most exact one of those that keep to the
        gate; else the most exact one, with layers restored.
        """
        tried: list[Tried] = []
        for _, alike in groupby(recipes, key=lambda recipe: (recipe.portable, recipe.clips)):
            together: list[Tried] = []
            for recipe in alike:
                together.append(self.attempt(recipe))
                if enough(together[-1], self.spec.gates, more_db=AMPLE_DB):
                    return together[-1], [*tried, *together[:-1]]
            tried += together
            if fitting := [entry for entry in together if enough(entry, self.spec.gates)]:
                return _parted(tried, most_exact(fitting))
        if holding := [entry for entry in tried if not entry.refusal]:
            return _parted(tried, most_exact(holding))
        best = most_exact(tried)
        return _parted(tried, self.restored(best) if math.isfinite(best.exactness) else best)

    def attempt(self, recipe: Recipe, left: Set[str] = frozenset()) -> Tried:
        self._files += 1
        file = self.work / f"{self._files}.onnx"
        ranges = self._ranges(recipe, static_nodes(self.graph, recipe, left))
        rewrite(self.graph, recipe, ranges, left).save(file)
        found, quality = self._compared(file)
        return Tried(recipe, left, found.refusal, quality.sqnr_db if quality else math.nan, file)

    def _ranges(self, recipe: Recipe, static: set[str]) -> dict[str, Range]:
        if recipe.ranges is None:
            return {}
        return self.calibration.ranges(followed(self.graph, static).values(), recipe.ranges)

    def _compared(self, file: Path) -> tuple[Judgement, Quality | None]:
        """By the judge's own rule, with the fp32 format's answers to calibration samples as the truth."""
        tally = Tally([output.name for output in self.spec.outputs if output.scores])
        cases, given = [], []
        try:
            run = open_format(Format.ONNX_INT8, file, outputs=(), text=self.spec.text)
            for batch, expected in zip(self.batches, self.answers, strict=False):
                case, answer = Case(batch.name, batch.inputs, expected, None, real=True), run(batch.inputs)
                if refusal := form(case, answer):
                    return Judgement(refusal), None
                tally.add(batch.of_samples(self.spec, expected), batch.of_samples(self.spec, answer), None)
                cases.append(case)
                given.append(answer)
        except Exception as error:  # a runtime's own words
            return Judgement(f"does not run: {brief(error)}"), None
        return judge_int8(cases, given, tally.quality(), self.gate), tally.quality()

    def restored(self, worst: Tried) -> Tried:
        """The same recipe with those nodes in fp32 that hurt most, as few of them as keep to the gate; `worst` itself
        where half of them are not enough."""
        noise = self.sensitivity(worst.recipe)
        order = sorted(noise, key=lambda name: (noise[name], name))
        most, count, below = math.floor(len(order) * MOST_LEFT), 1, 0
        found = worst
        while below < most:
            count = min(count, most)
            found = self.attempt(worst.recipe, frozenset(order[:count]))
            if not found.refusal:
                return self._fewest(worst.recipe, order, below, count, found)
            below, count = count, count * 2
        return worst

    def _fewest(self, recipe: Recipe, order: Sequence[str], below: int, count: int, found: Tried) -> Tried:
        """below: too few. count: enough, as `found` shows."""
        while count - below > 1:
            middle = (below + count) // 2
            attempt = self.attempt(recipe, frozenset(order[:middle]))
            if attempt.refusal:
                below = middle
            else:
                count, found = middle, attempt
        return found

    def sensitivity(self, recipe: Recipe) -> dict[str, float]:
        """node -> signal-to-noise ratio in dB of its own outputs, when it alone is quantised and reads what it reads in
        the fp32 model, over the first batch."""
        nodes = quantisable(self.graph, recipe)
        names = [name for node in nodes for name in (*varying(self.graph, node), *filter(None, node.output))]
        file = self.work / "activations.onnx"
        (seen,) = activations(self.graph, names, self.batches[:1], file, self.spec.text)
        return {key(node): self._noise(recipe, node, seen) for node in nodes}

    def _noise(self, recipe: Recipe, node: onnx.NodeProto, seen: Mapping[str, Array]) -> float:
        alone, file = by_itself(self.graph, node, seen), self.work / "node.onnx"
        static = static_nodes(alone, recipe)
        ranges = self.calibration.ranges(followed(alone, static).values(), recipe.ranges) if recipe.ranges else {}
        rewrite(alone, recipe, ranges).save(file)
        answer = open_format(Format.ONNX_INT8, file, outputs=())({name: seen[name] for name in alone.inputs})
        worst = math.inf
        for name, array in answer.items():
            noise = Noise()
            noise.add(seen[name], array)
            worst = min(worst, noise.sqnr_db)
        return worst


def gate(spec: Spec) -> Int8Gate:
    """Calibration samples have no labels: accuracy can not fall by more than the part of answers that change."""
    gates = spec.gates
    agreement = 1 - gates.int8_accuracy_drop if spec.samples.labels else gates.int8_agreement
    return Int8Gate(gates.int8_accuracy_drop, agreement, gates.int8_sqnr_db + MARGIN_DB)


def most_exact(tried: Sequence[Tried]) -> Tried:
    return max(tried, key=lambda entry: entry.exactness)


def _parted(tried: Sequence[Tried], kept: Tried) -> tuple[Tried, list[Tried]]:
    return kept, [entry for entry in tried if entry is not kept]


def enough(found: Tried, gates: Gates, *, more_db: float = 0.0) -> bool:
    """A part of equal answers on some samples may be luck, so that scores are held to the ratio too; not where the spec
    asks for the recipe by name."""
    return not found.refusal and (found.recipe.asked or not found.sqnr_db < gates.int8_sqnr_db + more_db)


def varying(graph: Graph, node: onnx.NodeProto) -> list[str]:
    """Inputs that are no constants."""
    return [name for name in node.input if name and not graph.is_constant(name)]


def by_itself(graph: Graph, node: onnx.NodeProto, seen: Mapping[str, Array]) -> Graph:
    """A graph of this node alone, with the constants that it reads."""
    inner = onnx.GraphProto(name="node")
    for name in dict.fromkeys(varying(graph, node)):
        kind = onnx.helper.np_dtype_to_tensor_dtype(seen[name].dtype)
        inner.input.append(onnx.helper.make_tensor_value_info(name, kind, [None] * seen[name].ndim))
    for name in filter(None, node.output):
        inner.output.append(onnx.ValueInfoProto(name=name))
    inner.node.extend(graph.producers[name] for name in node.input if _is_constant_node(graph, name))
    inner.node.append(node)
    inner.initializer.extend(tensor for tensor in graph.model.graph.initializer if tensor.name in node.input)
    model = onnx.ModelProto(ir_version=graph.model.ir_version, opset_import=graph.model.opset_import, graph=inner)
    return Graph(model, graph.large, {name: graph.folded[name] for name in node.input if name in graph.folded})


def _is_constant_node(graph: Graph, name: str) -> bool:
    return name not in graph.folded and name in graph.producers and graph.is_constant(name)
