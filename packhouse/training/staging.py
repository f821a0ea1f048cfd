"""The training side: hands a trained model over to packhouse.

A training script ends with one call. It writes safetensors, real samples and `package.toml` with their digests, and
`package.toml` last, so that a source is whole or not there. Needs torch and nothing of the orchestrator.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from packhouse.architectures import exported_program, registry
from packhouse.digest import digest_bytes, digest_file
from packhouse.errors import ArchitectureUnknown, SamplesInvalid, SpecInvalid, WeightsInvalid
from packhouse.formats.arrays import Array, Outputs
from packhouse.parity.judge import Case
from packhouse.parity.probes import check_samples, read_samples
from packhouse.parity.trained_outputs import answer, cases, difference, refusal
from packhouse.spec.errors import Finding, key_of, line_of
from packhouse.spec.errors import Path as Keys
from packhouse.spec.model import PROGRAM, SCHEMA, SPEC_FILE, Spec, checked, read, render
from packhouse.spec.steps import OneHot, Standard, Step, Value, lookup, prepared
from packhouse.spec.supported import NEXT, check_supported, not_yet, unsupported
from packhouse.spec.types import DType, Misplaced
from packhouse.store import Retrying, open_store
from packhouse.training.announce import announce
from packhouse.training.preprocessing import apply, codes
from packhouse.weights.safetensors_codec import write_numpy

if TYPE_CHECKING:
    import torch

WEIGHTS_FILE = "weights.safetensors"
PROGRAM_FILE = "model.pt2"
SAMPLES_FILE = "samples.safetensors"
DEFAULT_BATCH = (1, 64)


@dataclass(frozen=True)
class Standardise:
    """(x - mean) / scale along the last axis of one input: a scikit-learn StandardScaler's numbers, not its pickle."""

    input: str
    mean: Sequence[float]
    scale: Sequence[float]
    columns: Sequence[str] = ()


@dataclass(frozen=True)
class Staged:
    """url: what to hand to `packhouse release`. notes: what could not be checked here."""

    url: str
    spec: Spec
    notes: tuple[str, ...] = ()


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
    steps = _steps(preprocessing)
    samples = {key: _sample(steps, key, value) for key, value in inputs.items()}
    classes = _classes(labels) if labels is not None else None
    told = dict(kinds or {})
    scored = (
        scores if scores is not None else outputs[:1] if classes is not None and "scores" not in told.values() else ()
    )
    _check_names(inputs, outputs, axes=axes, value_ranges=value_ranges, kinds=kinds, columns=columns, scores=scored)
    told |= {output: "scores" for output in scored if output not in told}
    named = {key: tuple((axes or {}).get(key) or ("batch", *array.shape[1:])) for key, array in samples.items()}
    limits = _limits(named, ranges or {}, sizes or {})
    _check_steps(steps, samples, named)
    with tempfile.TemporaryDirectory(prefix="packhouse-stage-") as folder:
        root = Path(folder)
        module, weights = _written(model, architecture, root)
        split = _split(samples, classes, calibration)
        write_numpy(root / SAMPLES_FILE, split)
        shapes = _outputs(module, samples, named, outputs, axes or {}, limits, steps)
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
            document["preprocessing"] = [_as_table(step) for step in steps]
        if card:
            document["card"] = dict(card)
        if mlflow:
            document["mlflow"] = {"name": mlflow}
        if image:
            document["image"] = {"repository": image} | ({"modelpack": True} if modelpack else {})
        spec = _filled(root, document, told=lambda found: _told(found.path, document, found))
        for path, value in unsupported(spec):
            raise SpecInvalid(not_yet(f"{_argument(path, document)}{value}"), where="stage", next=NEXT)
        check_samples(spec, split)
        trained, notes = _answers(module, spec, split)
        write_numpy(root / SAMPLES_FILE, split | trained)
        notes += _check_architecture(module, spec, cases(spec, split | trained))
        return stage_folder(root, document, to=to, notes=notes, announce_to=announce_to)


def _check_names(inputs: Iterable[str], outputs: Iterable[str], **given: Iterable[str] | None) -> None:
    """What is said of an input or output that is not there would be ignored."""
    known = {"value_ranges": [*inputs], "kinds": [*outputs], "scores": [*outputs]}
    for argument, names in given.items():
        legal = known.get(argument, [*inputs, *outputs])
        if unknown := [name for name in names or () if name not in legal]:
            what = "PH-0281 is neither an input nor an output" if argument not in known else "PH-0127 is not there"
            raise SpecInvalid(what, where=f"{argument}: {unknown[0]}", want=", ".join(legal))


def _limits(
    named: Mapping[str, Sequence[str | int]],
    ranges: Mapping[str, tuple[int, int]],
    sizes: Mapping[str, Sequence[int]],
) -> dict[str, dict[str, Any]]:
    """The tables of [axes]."""
    limits: dict[str, dict[str, Any]] = {}
    for argument, given in (("ranges", ranges), ("sizes", sizes)):
        for axis, numbers in given.items():
            if not numbers or not all(isinstance(number, int) for number in numbers):
                raise SpecInvalid("PH-0279 are whole numbers", where=f"{argument}: {axis}", got=str(numbers))
    for axis, limit in ranges.items():
        if len(limit) != 2:
            raise SpecInvalid(
                "PH-0277 a range is two sizes", where=f"ranges: {axis}", got=str(limit), want="(smallest, largest)"
            )
        limits[axis] = {"min": limit[0], "max": limit[1]}
    for axis, legal in sizes.items():
        if axis in limits:
            raise SpecInvalid("PH-0278 has a range too", where=f"sizes: {axis}", next="say one of the two")
        limits[axis] = {"sizes": list(legal)}
    for key, shape in named.items():
        for name in shape:
            if name == "batch":
                limits.setdefault(name, dict(zip(("min", "max"), DEFAULT_BATCH, strict=True)))
            elif isinstance(name, str) and name not in limits:
                next = f'ranges={{"{name}": (1, 16)}}, or whatever it may have'
                raise SpecInvalid(
                    f"PH-0280 axis {name!r} has no smallest and largest size", where=f"axes: {key}", next=next
                )
    return limits


_ARGUMENTS: dict[Keys, str] = {
    ("model", "name"): "name",
    ("model", "description"): "description",
    ("architecture", "name"): "architecture",
    ("architecture", "arguments"): "arguments",
    ("samples", "labels"): "labels",
    ("weights",): "model",
    ("image", "repository"): "image",
    ("image", "modelpack"): "modelpack",
    ("mlflow", "name"): "mlflow",
}
"""Keys of package.toml -> the argument of `stage` that says the same."""

_OF_AXES = {"sizes": "sizes"}
_OF_TENSORS = {"shape": "axes", "range": "value_ranges", "columns": "columns", "kind": "kinds"}


def _argument(path: Keys, document: Mapping[str, Any]) -> str:
    """What the caller of `stage` knows a key as: `ranges: time`."""
    section, name, key = (*path, "", "", "")[:3]
    if section == "axes":
        return f"{_OF_AXES.get(str(key), 'ranges')}: {name}"
    if section in ("inputs", "outputs") and isinstance(name, int):
        return f"{_OF_TENSORS.get(str(key), section)}: {document[str(section)][name]['name']}"
    for length in (2, 1):
        if argument := _ARGUMENTS.get(path[:length]):
            return ": ".join(part for part in (argument, key_of(path[length:])) if part)
    if section == "preprocessing":
        return key_of(path)
    return ": ".join(part for part in (str(section), key_of(path[1:])) if part)


def _told(path: Keys, document: Mapping[str, Any], found: Finding) -> SpecInvalid:
    return SpecInvalid(
        found.coded(found.what), where=_argument(path, document), got=found.got, want=found.want, next=found.next
    )


def stage_folder(
    folder: Path,
    document: Mapping[str, Any],
    *,
    to: str,
    text: str = "",
    notes: tuple[str, ...] = (),
    announce_to: str | None = None,
) -> Staged:
    """Stages files that are there already. document: package.toml as a dictionary, in which `weights` and `samples`
    need not name digests and sizes; they are filled in. It keeps its schema. text: the same as its author wrote it, for
    the lines in messages. Uploads the files, then package.toml. Of a program, the example
    inputs stay here. Raises UnsafeWeights: the program carries other pickles."""
    with tempfile.TemporaryDirectory(prefix="packhouse-stage-") as work:
        program = _without_examples(folder, document, Path(work))
        spec = _filled(folder, document, program, told=lambda found: _in_file(found, text))
        check_supported(spec)
        samples = read_samples(folder / spec.samples.file)
        check_samples(spec, samples)
        cases(spec, samples)
        store = Retrying(open_store(to))
        store.put(spec.weights.file, program or folder / spec.weights.file, digest=spec.weights.digest)
        store.put(spec.samples.file, folder / spec.samples.file, digest=spec.samples.digest)
    written = render(spec)
    store.put(SPEC_FILE, written, digest=digest_bytes(written))
    said = announce(store.url, model=spec.model.name, digest=digest_bytes(written), api=announce_to)
    return Staged(store.url, spec, (*notes, said) if said else notes)


def _without_examples(folder: Path, document: Mapping[str, Any], work: Path) -> Path | None:
    """Of a program whose digest nobody has named yet, a copy without example inputs; else None."""
    architecture, weights = (document.get(section) for section in ("architecture", "weights"))
    if not isinstance(architecture, Mapping) or not isinstance(weights, Mapping) or "sha256" in weights:
        return None
    path = folder / Path(str(weights.get("file", ""))).name
    if architecture.get("name") != PROGRAM or not path.is_file():
        return None
    exported_program.without_examples(path, work / path.name)
    return work / path.name


def _filled(
    folder: Path, document: Mapping[str, Any], program: Path | None = None, *, told: Callable[[Finding], SpecInvalid]
) -> Spec:
    """The spec, with the digests and sizes of the folder's files. program: what is to be uploaded for weights. told:
    how a finding is said to whoever wrote the document."""
    filled = dict(document)
    for section, default in (("weights", WEIGHTS_FILE), ("samples", SAMPLES_FILE)):
        given = document.get(section, {})
        if not isinstance(given, Mapping):
            raise SpecInvalid(f"PH-0276 [{section}] is not a table", where=SPEC_FILE, got=repr(given)[:80])
        entry = {"file": default, **given}
        path = program if program and section == "weights" else folder / Path(str(entry["file"])).name
        filled[section] = {**_named(path, section), **entry}
    found = checked(_as_read(filled))
    if isinstance(found, Finding):
        raise told(found)
    return found


def _as_read(document: dict[str, Any]) -> dict[str, Any]:
    """The document as it will be read again."""
    import tomli_w

    try:
        written = tomli_w.dumps(document).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise SpecInvalid(
            f"PH-0275 not to be written as TOML: {error}", where=SPEC_FILE, want="plain values"
        ) from error
    return read(written)


def _in_file(found: Finding, text: str) -> SpecInvalid:
    line = line_of(found.path, text)
    what = found.coded(f"{key_of(found.path)}: {found.what}".removeprefix(": "))
    where = f"{SPEC_FILE}:{line}" if line else SPEC_FILE
    return SpecInvalid(what, where=where, got=found.got, want=found.want, next=found.next)


def _named(path: Path, section: str) -> dict[str, Any]:
    if not path.is_file():
        raise SpecInvalid(f"PH-0274 [{section}] names a file that is not there", where=str(path))
    return {"sha256": digest_file(path).removeprefix("sha256:"), "size": path.stat().st_size}


def _array(value: ArrayLike, where: str) -> Array:
    try:
        array = value.numpy(force=True) if hasattr(value, "numpy") else np.asarray(value)
    except (TypeError, ValueError) as error:  # bfloat16, rows of different length
        raise SamplesInvalid(f"PH-0273 not an array: {error}", where=where) from error
    if not np.ndim(array):
        raise SamplesInvalid("PH-0272 one value is no stack of samples", where=where, want="(n, ...)")
    return np.ascontiguousarray(array)


def _steps(preprocessing: Standardise | Sequence[Step]) -> tuple[Step, ...]:
    if not isinstance(preprocessing, Standardise):
        return tuple(preprocessing)
    mean, scale = (tuple(float(value) for value in part) for part in (preprocessing.mean, preprocessing.scale))
    columns = tuple(str(column) for column in preprocessing.columns)
    return (Standard(kind="standard", input=preprocessing.input, columns=columns, mean=mean, scale=scale),)


def _as_table(step: Step) -> dict[str, Any]:
    return {"kind": step.kind, **step.model_dump(mode="json", exclude_defaults=True)}


def _check_steps(steps: Sequence[Step], samples: Mapping[str, Array], named: Mapping[str, Sequence[str | int]]) -> None:
    if unknown := sorted(str(array.dtype) for array in samples.values() if str(array.dtype) not in set(DType)):
        raise SpecInvalid("PH-0271 no input has this dtype", where="inputs", got=unknown[0], want=", ".join(DType))
    try:
        prepared(steps, {key: Value(DType(str(a.dtype)), tuple(named[key])) for key, a in samples.items()})
    except Misplaced as error:
        position, *path = error.path
        where = f"preprocessing[{position}].{'.'.join(map(str, path))}"
        raise SpecInvalid(str(error), where=where) from error


def _sample(steps: Sequence[Step], key: str, value: ArrayLike) -> Array:
    """Text as codes; one column of categories, which may come as (n,), as (n, 1)."""
    array, step, where = _array(value, f"inputs: {key}"), lookup(steps, key), f"inputs: {key}"
    if array.dtype.kind in "OUS":
        if step is None or not step.text:
            raise SamplesInvalid(
                "PH-0270 text needs a step that lists it", where=where, next="one-hot or vocabulary, in preprocessing"
            )
        array = codes(array, step.text)
    return array[:, None] if isinstance(step, OneHot) and array.ndim == 1 else array


def _classes(labels: ArrayLike) -> Array:
    array = _array(labels, "labels")
    if array.dtype.kind not in "iub" and not (array.dtype.kind == "f" and np.all(array == np.floor(array))):
        raise SamplesInvalid("PH-0269 labels are whole numbers", where="labels", got=str(array.dtype))
    return array.astype(np.int64)


def _split(samples: Mapping[str, Array], labels: Array | None, calibration: float) -> dict[str, Array]:
    counts = {key: len(array) for key, array in samples.items()} | (
        {"labels": len(labels)} if labels is not None else {}
    )
    total = min(counts.values(), default=0)
    if len(set(counts.values())) != 1 or total < 2 or not 0 < calibration < 1:
        raise SamplesInvalid(
            "PH-0268 two samples at least, as many of each input, are split in two",
            where="stage",
            got=f"{counts}, {calibration}",
        )
    # Where the running share passes a whole number; the first sample always does, and the second never.
    chosen = np.diff(np.floor(np.arange(-1, total) * calibration)) > 0
    split = {f"calibration.{key}": array[chosen] for key, array in samples.items()}
    split |= {f"evaluation.{key}": array[~chosen] for key, array in samples.items()}
    return split | ({"label": labels[~chosen]} if labels is not None else {})


def _written(
    model: torch.nn.Module | torch.export.ExportedProgram, architecture: str, root: Path
) -> tuple[torch.nn.Module, str]:
    """Writes the weights, or the program; gives the module in eval mode, and the file's name."""
    import torch

    if isinstance(model, torch.export.ExportedProgram) is not (architecture == PROGRAM):
        want = f'architecture="{PROGRAM}" with a model of torch.export.export, and a module with any other'
        raise SpecInvalid(
            "PH-0267 model and architecture do not fit", where="stage", got=type(model).__name__, want=want
        )
    if isinstance(model, torch.export.ExportedProgram):
        exported_program.save(model, root / PROGRAM_FILE)
        module = exported_program.load(root / PROGRAM_FILE)
        _check_device(module)
        return module, PROGRAM_FILE
    _check_device(model)
    model.eval()
    _write_weights(model, root / WEIGHTS_FILE)
    return model, WEIGHTS_FILE


def _write_weights(model: torch.nn.Module, path: Path) -> None:
    """The state dict; of tied parameters, only the first name."""
    from packhouse.weights.safetensors_torch import write_torch

    first: dict[int, str] = {}
    tied = {
        name
        for name, parameter in model.named_parameters(remove_duplicate=False)
        if first.setdefault(id(parameter), name) != name
    }
    state = {key: tensor for key, tensor in model.state_dict().items() if key not in tied}
    if not state:
        raise WeightsInvalid("PH-0266 the model has no parameters", where="stage")
    write_torch(path, state)


def _outputs(
    model: torch.nn.Module,
    samples: Mapping[str, Array],
    named: Mapping[str, Sequence[str | int]],
    names: Sequence[str],
    axes: Mapping[str, Sequence[str | int]],
    limits: Mapping[str, Mapping[str, Any]],
    steps: Sequence[Step],
) -> list[dict[str, Any]]:
    """dtype and shape of every output, read off the model: a size that changes with the number of rows is the batch.
    axes: what the caller says of them instead."""
    batch = {shape[0] for shape in named.values()}
    first = next(iter(batch))
    rows = isinstance(first, str) and len(batch) == 1
    sizes = _row_counts(limits[str(first)]) if rows else (0,)
    runs = [_run(model, {key: _first(array, size) for key, array in samples.items()}, steps) for size in sizes]
    if len(runs[0]) != len(names):
        raise SpecInvalid(
            "PH-0265 the model has another number of outputs",
            where="outputs",
            got=str(len(runs[0])),
            want=str(list(names)),
        )
    return [
        {
            "name": name,
            "dtype": str(runs[0][number].dtype),
            "shape": _given(name, axes[name], runs[0][number])
            if name in axes
            else _shape([run[number] for run in runs], sizes, str(first), samples, named),
        }
        for number, name in enumerate(names)
    ]


def _row_counts(limits: Mapping[str, Any]) -> tuple[int, ...]:
    """Two numbers of rows that the model takes, 2 and 3 where it may; one where there is no other."""
    legal = list(limits.get("sizes") or ())
    if not legal:
        low, high = max(1, limits["min"]), limits["max"]
        legal = list(range(low, min(high, low + 2) + 1))
    legal = [size for size in legal if size > 1 or len(legal) < 3]
    return tuple(legal[:2]) or (1,)


def _given(name: str, shape: Sequence[str | int], answer: Array) -> list[str | int]:
    fits = len(shape) == answer.ndim and all(
        isinstance(size, str) or size == got for size, got in zip(shape, answer.shape, strict=False)
    )
    if not fits:
        raise SpecInvalid(
            "PH-0264 are not those of the answer", where=f"axes: {name}", got=str(answer.shape), want=str(shape)
        )
    return list(shape)


def _first(array: Array, size: int) -> Array:
    return np.take(array, range(size), axis=0, mode="wrap") if size else array[0]


def _run(model: torch.nn.Module, inputs: dict[str, Array], steps: Sequence[Step]) -> list[Array]:
    from packhouse.formats.runtime import torch_runner

    try:
        inputs = apply(steps, inputs)
        return list(torch_runner(model, [])(inputs).values())
    except Exception as error:  # the model's own code: whatever it raises is about these samples
        given = ", ".join(f"{key} {array.dtype} {array.shape}" for key, array in inputs.items())
        raise SamplesInvalid(f"PH-0263 the model fails on them: {error}", where="inputs", got=given) from error


def _check_device(model: torch.nn.Module) -> None:
    for name, tensor in model.state_dict().items():
        if tensor.device.type != "cpu":
            raise SpecInvalid(
                "PH-0262 the model is on another device",
                where=name,
                got=str(tensor.device),
                want="cpu: model.to('cpu')",
            )


def _shape(
    answers: list[Array],
    sizes: tuple[int, ...],
    batch: str,
    samples: Mapping[str, Array],
    named: Mapping[str, Sequence[str | int]],
) -> list[str | int]:
    """Sizes as the model gave them, but a name where the number of rows or another named axis of the samples shows."""
    dynamic = {
        int(array.shape[position]): axis
        for key, array in samples.items()
        for position, axis in enumerate(named[key])
        if isinstance(axis, str) and axis != batch
    }
    fixed = {size for shape in named.values() for size in shape if isinstance(size, int)}
    shape: list[str | int] = []
    for position, size in enumerate(answers[0].shape):
        changes = len(answers) > 1 and (size, answers[1].shape[position]) == sizes
        if changes or (len(answers) == 1 and position == 0 and (size,) == sizes):
            shape.append(batch)
        else:
            shape.append(dynamic[size] if size in dynamic and size not in fixed else size)
    return shape


def _answers(
    model: torch.nn.Module, spec: Spec, samples: Mapping[str, Array]
) -> tuple[dict[str, Array], tuple[str, ...]]:
    """The trained model's answers, for a worker to compare with; none where it has none that could be."""

    def run(inputs: Mapping[str, Array]) -> Outputs:
        return _named_outputs(model, spec, inputs)

    first, second = answer(spec, samples, run), answer(spec, samples, run)
    for name, array in first.items():
        floating = np.issubdtype(array.dtype, np.inexact)
        if array.shape != second[name].shape or not np.array_equal(array, second[name], equal_nan=floating):
            return {}, (f"{name}: the model gave the same inputs two answers, and will be refused",)
        if floating and not np.all(np.isfinite(array)):
            return {}, (f"{name}: the model answers its own samples with NaN or infinity, and will be refused",)
    return first, ()


def _named_outputs(model: torch.nn.Module, spec: Spec, inputs: Mapping[str, Array]) -> Outputs:
    names = (output.name for output in spec.outputs)
    return dict(zip(names, _run(model, dict(inputs), spec.preprocessing), strict=True))


def _check_architecture(model: torch.nn.Module, spec: Spec, told: Sequence[Case]) -> tuple[str, ...]:
    """The registry, where it is installed here too, must build what was trained: the same tensors, the same answers."""
    name = spec.architecture.name
    if name == PROGRAM:
        return ()
    try:
        registry.find(name)
    except ArchitectureUnknown:
        return (f"architecture {name!r} is not registered here, so it was not compared with the model",)
    here, state = registry.build(name, spec.architecture.arguments), model.state_dict()
    built = {key: tuple(tensor.shape) for key, tensor in here.state_dict().items()}
    trained = {key: tuple(tensor.shape) for key, tensor in state.items()}
    if different := sorted(key for key in built.keys() | trained.keys() if built.get(key) != trained.get(key)):
        raise WeightsInvalid(
            f"PH-0261 architecture {name!r} with these arguments is not what was trained",
            where=different[0],
            got=str(trained.get(different[0], "nothing")),
            want=str(built.get(different[0], "nothing")),
        )
    here.load_state_dict(state)
    for case in told:
        answered = replace(case, expected=_named_outputs(here, spec, case.inputs))
        if words := difference(case, answered):
            raise refusal(name, words)
    return ()
