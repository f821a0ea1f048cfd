"""INT8 of the ONNX format: the recipes that its operators allow are tried on the calibration samples, one is kept."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from packhouse.errors import ExportFailed
from packhouse.parity.probes import check_samples, read_samples
from packhouse.spec.onnxruntimes import INLINE_BYTES
from tasks.jobs import model as models
from tasks.jobs.int8.constants import folded
from tasks.jobs.int8.nodes import key, quantisable
from tasks.jobs.int8.recipes import recipes
from tasks.jobs.int8.search import Search, Tried
from tasks.jobs.onnx.file import DATA
from tasks.jobs.onnx.graph import Graph, read
from tasks.jobs.onnx.target import read_by

MAX_NAMED = 8
"""Layers left in fp32 that a note names."""


def run(*, spec: str, samples: str, model: str, out: str) -> dict[str, Any]:
    """Quantises the fp32 ONNX file `model` to `out`. Returns {"recipe": its name, "portable": whether it answers
    alike on processors without VNNI, "onnx": what reads it, "quantised": {operator: count}, "left": nodes in fp32,
    "notes"}.

    Raises ExportFailed: the graph has nothing that a recipe takes, or the onnxruntime that the spec names does not
    read the file.
    """
    parsed, arrays = models.read_spec(spec), read_samples(Path(samples))
    check_samples(parsed, arrays)
    with tempfile.TemporaryDirectory(dir=Path(out).parent, prefix="int8-") as name:
        graph = folded(read(Path(model)), Path(name) / "constants.onnx")
        tried = list(recipes(graph, parsed.formats))
        if not tried:
            got = ", ".join(sorted({node.op_type for node in graph.nodes}))
            raise ExportFailed("PH-0571 has no operator that INT8 takes", where="onnx-int8", got=got)
        kept, others = Search(parsed, arrays, graph, Path(model), Path(name)).best(tried)
        if kept.file.with_name(kept.file.name + DATA).exists():
            raise ExportFailed(
                "PH-0545 is larger than one protobuf message may be", where="onnx-int8", want=f"{INLINE_BYTES:,}"
            )
        kept.file.replace(out)
    counts = Counter(node.op_type for node in quantisable(graph, kept.recipe) if key(node) not in kept.left)
    return {
        "recipe": kept.recipe.name,
        "portable": kept.recipe.portable,
        "onnx": read_by(Path(out), parsed.formats, where="onnx-int8").model_dump(),
        "quantised": dict(sorted(counts.items())),
        "left": sorted(kept.left),
        "notes": _notes(graph, kept, others),
    }


def _notes(graph: Graph, kept: Tried, others: list[Tried]) -> list[str]:
    bound = "answers alike on every processor" if kept.recipe.portable else "for processors with VNNI"
    notes = [f"recipe {kept.recipe.name}: {kept.sqnr_db:.1f} dB on calibration samples, {bound}"]
    if any(node.op_type == "GRU" for node in graph.nodes):
        notes.append("GRU stays in fp32: ONNX Runtime has no integer kernel for it")
    if kept.left:
        names = [node.name or key(node) for node in graph.nodes if key(node) in kept.left]
        more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
        notes.append(f"left in fp32, since they hurt most: {', '.join(names[:MAX_NAMED])}{more}")
    return notes + [f"recipe {entry.recipe.name}: not taken: {entry.why}" for entry in others]
