"""The training side: hands a trained model over to packhouse.

A training script ends with one call. It writes safetensors, real samples and `package.toml` with their digests, and
`package.toml` last, so that a source is whole or not there. Needs torch and nothing of the orchestrator.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import ArrayLike

from packhouse.errors import SpecInvalid
from packhouse.parity.probes import check_samples
from packhouse.parity.trained_outputs import cases
from packhouse.spec.model import SCHEMA
from packhouse.spec.steps import Step
from packhouse.spec.supported import NEXT, not_yet, unsupported
from packhouse.weights.safetensors_codec import write_numpy

if TYPE_CHECKING:
    import torch
from packhouse.training.arguments import argument_for, axis_limits, told_by_argument
from packhouse.training.model_files import output_tensors, write_model
from packhouse.training.samples import (
    Standardise,
    as_classes,
    as_sample,
    as_steps,
    as_table,
    check_steps,
    split_samples,
)
from packhouse.training.self_check import check_architecture, trained_outputs
from packhouse.training.source import SAMPLES_FILE, Staged, filled_spec, stage_folder


def stage(
    model: torch.nn.Module | torch.export.ExportedProgram,
    *,
    to: str,
    name: str,
    architecture: str,
    inputs: Mapping[str, ArrayLike],
    outputs: Sequence[str],
    arguments: Mapping[str, Any] | None = None,
    labels: ArrayLike | None = None,
    scores: Sequence[str] | None = None,
    axes: Mapping[str, Sequence[str | int]] | None = None,
    ranges: Mapping[str, tuple[int, int]] | None = None,
    sizes: Mapping[str, Sequence[int]] | None = None,
    value_ranges: Mapping[str, tuple[float, float]] | None = None,
    kinds: Mapping[str, str] | None = None,
    columns: Mapping[str, Sequence[str]] | None = None,
    calibration: float = 0.25,
    preprocessing: Standardise | Sequence[Step] = (),
    description: str = "",
    card: Mapping[str, Any] | None = None,
    formats: Mapping[str, Any] | None = None,
    gates: Mapping[str, float | str] | None = None,
    mlflow: str | None = None,
    image: str | None = None,
    modelpack: bool = False,
    announce_to: str | None = None,
) -> Staged:
    """Writes the source of one trained model to `to`: a folder or an `s3://` prefix, one for each training run.

    model: trained; put into eval mode. architecture, arguments: what the registry on the workers builds it from; for a
    model of torch.export.export, "program" and none, and its example inputs are taken out of it.
    inputs: name -> real samples, (n, ...), as the released model will get them: before `preprocessing`. They are
    passed to the model by position, in this order, as `preprocessing` leaves them; text only where a step lists it.
    outputs: names, in the order of the model's answer.
    labels: int, (n,), the right class of each sample; makes accuracy the measure of INT8, and needs `scores`: the
    outputs with one score a class (default with labels: the first). kinds: output -> "scores", "embedding" or "value",
    the default; `scores` is short for the first. axes: input or output -> its axes, a name where the size may change;
    default: the first of an input is "batch", and those of an output are read off the model. ranges: axis -> smallest
    and largest size; default: the batch has 1 to 64. sizes: axis -> the only sizes that are legal, instead of a range.
    value_ranges: input -> its smallest and largest value. columns: input or output -> names along its last axis.
    calibration: the part of the samples, evenly spread, that INT8 may calibrate on; accuracy never sees it.
    card: text for people: task, licence, datasets, intended_use, contact.
    announce_to: the Prefect API that is told, so that the release starts at once; default: PREFECT_API_URL where it is
    set; "off": nobody.

    Raises SpecInvalid, SamplesInvalid, WeightsInvalid, ArchitectureUnknown (it is registered here and refuses the
    arguments), ParityRefused (it is registered here and answers otherwise), and the store's errors.
    """
    steps = as_steps(preprocessing)
    samples = {key: as_sample(steps, key, value) for key, value in inputs.items()}
    classes = as_classes(labels) if labels is not None else None
    told = dict(kinds or {})
    scored = (
        scores if scores is not None else outputs[:1] if classes is not None and "scores" not in told.values() else ()
    )
    _check_names(inputs, outputs, axes=axes, value_ranges=value_ranges, kinds=kinds, columns=columns, scores=scored)
    told |= {output: "scores" for output in scored if output not in told}
    named = {key: tuple((axes or {}).get(key) or ("batch", *array.shape[1:])) for key, array in samples.items()}
    limits = axis_limits(named, ranges or {}, sizes or {})
    check_steps(steps, samples, named)
    with tempfile.TemporaryDirectory(prefix="packhouse-stage-") as folder:
        root = Path(folder)
        module, weights = write_model(model, architecture, root)
        split = split_samples(samples, classes, calibration)
        write_numpy(root / SAMPLES_FILE, split)
        shapes = output_tensors(module, samples, named, outputs, axes or {}, limits, steps)
        document: dict[str, Any] = {
            "schema": SCHEMA,
            "model": {"name": name, "description": description},
            "architecture": {"name": architecture, "arguments": dict(arguments or {})},
            "axes": limits,
            "inputs": [
                {"name": key, "dtype": str(array.dtype), "shape": list(named[key])} for key, array in samples.items()
            ],
            "outputs": [shape | {"kind": told.get(shape["name"], "value")} for shape in shapes],
            "weights": {"file": weights},
            "samples": {"labels": "class"} if classes is not None else {},
            "formats": dict(formats or {}),
            "gates": dict(gates or {}),
        }
        for tensor in document["inputs"]:
            if tensor["name"] in (value_ranges or {}):
                tensor["range"] = list((value_ranges or {})[tensor["name"]])
        for tensor in (*document["inputs"], *document["outputs"]):
            if tensor["name"] in (columns or {}):
                tensor["columns"] = list((columns or {})[tensor["name"]])
        if steps:
            document["preprocessing"] = [as_table(step) for step in steps]
        if card:
            document["card"] = dict(card)
        if mlflow:
            document["mlflow"] = {"name": mlflow}
        if image:
            document["image"] = {"repository": image} | ({"modelpack": True} if modelpack else {})
        spec = filled_spec(root, document, told=lambda found: told_by_argument(found.path, document, found))
        for path, value in unsupported(spec):
            raise SpecInvalid(not_yet(f"{argument_for(path, document)}{value}"), where="stage", next=NEXT)
        check_samples(spec, split)
        trained, notes = trained_outputs(module, spec, split)
        write_numpy(root / SAMPLES_FILE, split | trained)
        notes += check_architecture(module, spec, cases(spec, split | trained))
        return stage_folder(root, document, to=to, notes=notes, announce_to=announce_to)


def _check_names(inputs: Iterable[str], outputs: Iterable[str], **given: Iterable[str] | None) -> None:
    """What is said of an input or output that is not there would be ignored."""
    known = {"value_ranges": [*inputs], "kinds": [*outputs], "scores": [*outputs]}
    for argument, names in given.items():
        legal = known.get(argument, [*inputs, *outputs])
        if unknown := [name for name in names or () if name not in legal]:
            what = "PH-0281 is neither an input nor an output" if argument not in known else "PH-0127 is not there"
            raise SpecInvalid(what, where=f"{argument}: {unknown[0]}", want=", ".join(legal))
