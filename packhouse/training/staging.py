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
from packhouse.spec.supported import NEXT, check_formats, not_yet, unsupported
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
    """Writes the source of one trained model: weights, real samples and `package.toml`, which is written last.

    Args:
        model: The trained model, on the CPU. It is put into eval mode. Of a program of `torch.export.export`, the
            example inputs are removed.
        to: A folder or an `s3://` prefix, a new one for each training run.
        name: Name of the model's releases.
        architecture: Registered name of the builder that makes the module on the workers; `"program"` for a program.
        inputs: Input name -> real samples, (n, ...), as the released model will get them, before `preprocessing`. The
            model gets them by position, in this order, as `preprocessing` leaves them. Text needs a step that lists it.
        outputs: Names of the outputs, in the order in which the model gives them.
        arguments: Keyword arguments of the builder. None: it takes none.
        labels: The right class of each sample: integers, (n,). INT8 is then measured by accuracy, and an output must be
            of kind `scores`. None: there are no labels.
        scores: Outputs with one score a class along the last axis. None: the first output if there are labels, else
            none.
        axes: Input or output -> its axes, a name for a size that may change. None: the first axis of an input is
            `batch`, and those of an output are read off the model.
        ranges: Axis -> smallest and largest size. None: `batch` has 1 to 64.
        sizes: Axis -> the only legal sizes, instead of a range.
        value_ranges: Input -> its smallest and largest value, both included.
        kinds: Output -> `scores`, `embedding` or `value`. None: `value`, or as `scores` says.
        columns: Input or output -> names along its last axis, for people.
        calibration: Part of the samples, evenly spread, on which INT8 is calibrated: above 0, below 1. Accuracy is
            measured on the others.
        preprocessing: Steps that become part of every format. Empty: none.
        description: Text for people.
        card: Text for people: `task`, `licence`, `datasets`, `intended_use`, `contact`.
        formats: Keys of `[formats]`, such as `{"program": "off"}` (docs/spec.md#formats).
        gates: Keys of `[gates]`, such as `{"int8_accuracy_drop": 0.02}` (docs/spec.md#gates).
        mlflow: Name of the registered model in MLflow. None: the release is registered if the workers register all.
        image: Registry repository of the model's image. None: no image is made.
        modelpack: Whether the whole release goes to that repository too, as a CNCF ModelPack artifact.
        announce_to: The Prefect API that is told, so that the release starts at once. None: `PREFECT_API_URL`, if it is
            set. `"off"`: no server is told.

    Returns:
        The source's URL, its spec, and what could not be checked here.

    Raises:
        SpecInvalid: An argument does not say what a spec must say.
        SamplesInvalid: The samples do not fit the declared inputs, or the model fails on them.
        WeightsInvalid: The architecture with these arguments has other tensors than the trained model, or the model has
            no parameters.
        ArchitectureUnknown: The architecture is registered here, and its builder refuses the arguments.
        ParityRefused: The architecture is registered here, and its module computes other outputs.
        UnsafeWeights: The program carries pickles or custom code.
        StoreUnavailable: The store did not answer, broke off or denied access.
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
        check_formats(spec, where="stage", key=lambda path: argument_for(path, document))
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
