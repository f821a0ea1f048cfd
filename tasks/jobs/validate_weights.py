"""The gate: the one place where foreign weights are parsed. Behind it there is only safetensors that we wrote.

`run` is called in a locked-down child process. The order of its questions is fixed: what is the file, is its container
honest, does it load, then names, dtypes, shapes, ties, values. The first "no" ends it, with its own words.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict

import torch

from packhouse.architectures import exported_program
from packhouse.errors import UnsafeWeights, WeightsInvalid
from packhouse.spec.model import PROGRAM
from packhouse.weights.file_kind import Kind, Look, describe
from packhouse.weights.safetensors_codec import canonical_header, read_header, starts_with
from packhouse.weights.safetensors_torch import dtype_name, read_torch, write_torch
from packhouse.weights.torch_pickle import SAVE, StoredTensor, kind_of, read_checkpoint
from packhouse.weights.torch_zip import read_archive
from tasks.jobs import model as models
from tasks.jobs.fit import Expected, Tensors, few, fitted


class Checked(TypedDict):
    """What the gate let through. parameters: numbers in all tensors, buffers too; bytes: of the file at `out`."""

    tensors: int
    parameters: int
    bytes: int
    canonical: bool
    aliases: dict[str, str]
    kind: str
    notes: list[str]


def run(*, spec: str, weights: str, out: str, program: str = "") -> dict[str, Any]:
    """Writes canonical safetensors to `out`, unless the file is that already; of a program, the program to `program`.

    Raises UnsafeWeights, WeightsInvalid, ArchitectureUnknown.
    """
    parsed = models.read_spec(spec)
    if parsed.architecture.name == PROGRAM:
        return dict(_take_program(Path(weights), Path(program), Path(out)))
    module = models.skeleton(parsed)
    expected: Any = models.expected_tensors(module)
    return dict(check(weights=weights, expected=expected, aliases=models.aliases(module), out=out, reuse=True))


def check(
    *, weights: str, expected: dict[str, Expected], aliases: dict[str, str], out: str, reuse: bool = False
) -> Checked:
    """Checks the file against the architecture and writes it to `out` as canonical safetensors.

    reuse: a file that is canonical already is not written again; `canonical` in the answer says so.

    weights: a path whose digest the caller has verified and that nobody changes meanwhile. expected: the state dict
    of the architecture, tied names included. aliases: a tied name and the name whose tensor it shares; of such a pair
    the file may hold either or both. The ties stand in the metadata of `out`, which holds the shared tensor once.

    Law: equal weights give equal bytes at `out`, in whatever format and order they came.
    Raises UnsafeWeights: the file could run code, or is not what it claims to be. WeightsInvalid: it does not fit the
    architecture, or holds NaN or infinity. Memory: the file stays mapped; one tensor is copied at a time, if any.
    """
    path = Path(weights)
    kind = _kind(path)
    notes: list[str] = []
    loaded = read_torch(path) if kind is Kind.SAFETENSORS else _load_zip(path, notes)
    tensors, ties = fitted(path.name, loaded, expected, aliases)
    canonical = kind is Kind.SAFETENSORS and _is_canonical(path, ties)
    if not (canonical and reuse):
        write_torch(Path(out), tensors, ties)
    return Checked(
        tensors=len(tensors),
        parameters=sum(tensor.numel() for tensor in tensors.values()),
        bytes=(path if canonical else Path(out)).stat().st_size,
        canonical=canonical,
        aliases=ties,
        kind=kind.value,
        notes=notes,
    )


def _take_program(path: Path, program: Path, out: Path) -> Checked:
    """The program is written anew to `program`, and its weights, held to the same questions as any, to `out`.

    That its prefix is trusted was asked before. Raises UnsafeWeights, WeightsInvalid."""
    look = describe(path)
    if look.kind is not Kind.EXPORTED:
        what = "PH-0565 content is not what the extension says"
        raise UnsafeWeights(what, where=path.name, got=look.kind, want=Kind.EXPORTED, next="torch.export.save")
    exported_program.taken(path, program)
    module = exported_program.load(program)
    expected: Any = models.expected_tensors(module)
    tensors, ties = fitted(path.name, module.state_dict(), expected, models.aliases(module))
    write_torch(out, tensors, ties)
    return Checked(
        tensors=len(tensors),
        parameters=sum(tensor.numel() for tensor in tensors.values()),
        bytes=out.stat().st_size,
        canonical=False,
        aliases=ties,
        kind=Kind.EXPORTED.value,
        notes=[],
    )


# What the file is

SUFFIXES = {".safetensors": Kind.SAFETENSORS, ".pt": Kind.TORCH_ZIP, ".pth": Kind.TORCH_ZIP, ".bin": Kind.TORCH_ZIP}
PICKLED = "a pickled Python object, which can run code when it is loaded"
FOREIGN: dict[Kind, tuple[str, str]] = {
    Kind.PICKLE: (PICKLED, f"{SAVE}, or packhouse.stage(model, ...)"),
    Kind.JOBLIB: (
        f"a joblib file: {PICKLED}",
        "packhouse takes PyTorch weights; a scaler goes in as numbers in [preprocessing] of package.toml",
    ),
    Kind.TORCHSCRIPT: ("a TorchScript archive, which holds code and not only weights", f"load it, then {SAVE}"),
    Kind.EXPORTED: ("a torch.export program, which holds code and not only weights", SAVE),
    Kind.TORCH_LEGACY: ("a torch file in the format of before 1.6, which is a bare pickle", f"load it, then {SAVE}"),
    Kind.NUMPY: ("a numpy file, which can hold pickled objects", "safetensors.numpy.save_file(dict(numpy.load(...)))"),
    Kind.HDF5: ("an HDF5 or Keras file", f"packhouse takes PyTorch weights: {SAVE}"),
    Kind.ONNX: ("an ONNX model; packhouse makes ONNX itself", f"give it the weights: {SAVE}"),
    Kind.GGUF: ("a GGUF file, whose weights are quantised already", f"give it the weights as trained: {SAVE}"),
    Kind.COMPRESSED: ("a compressed file", f"do not compress weights: {SAVE}"),
    Kind.ARCHIVE: ("an archive that torch.save did not write", SAVE),
    Kind.EMPTY: ("the file is empty", SAVE),
}


def _kind(path: Path) -> Kind:
    """The kind by content, where the name's extension says the same."""
    look = describe(path)
    if look.kind in FOREIGN:
        what, to_do = FOREIGN[look.kind]
        raise UnsafeWeights(what, where=path.name, got=_seen(look), next=to_do)
    named = SUFFIXES.get(path.suffix)
    if named is None:
        raise UnsafeWeights(
            "PH-0564 extension is not one of a weights file",
            where=path.name,
            got=path.suffix or "none",
            want=" ".join(SUFFIXES),
        )
    # A broken safetensors file may look like nothing at all; its own reader has the better words.
    if look.kind is not named and not (look.kind is Kind.UNKNOWN and named is Kind.SAFETENSORS):
        raise UnsafeWeights(
            "PH-0565 content is not what the extension says", where=path.name, got=look.kind, want=named, next=SAVE
        )
    return named


def _seen(look: Look) -> str:
    names = f"globals: {few(list(look.globals))}" if look.globals else ""
    return ", ".join(part for part in (look.inside, names) if part)


# Loading


def _load_zip(path: Path, notes: list[str]) -> Tensors:
    """Our own reading of the archive first; then torch's, which must have found the same tensors."""
    checkpoint = read_checkpoint(read_archive(path), path.name)
    key, stored = _state_dict(path.name, checkpoint)
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        tensors = loaded if key is None else loaded[key]
    except Exception as error:
        # Whatever a foreign parser raises on foreign bytes, it is the file's fault; and there is no second try.
        raise UnsafeWeights(
            "PH-0563 torch.load refuses it", where=path.name, got=f"{type(error).__name__}: {error}", next=SAVE
        ) from error
    _same_reading(path.name, stored, tensors)
    if key is not None:
        notes.append(f"weights taken from key {key!a} of a checkpoint with {len(checkpoint)} keys")
    return {name: tensor.detach() for name, tensor in tensors.items()}


NESTED = ("state_dict", "model_state_dict", "model")


def _state_dict(where: str, checkpoint: Any) -> tuple[str | None, Mapping[str, StoredTensor]]:
    """The dict of tensors and the key under which it is nested, if any."""
    if _is_state_dict(checkpoint):
        return None, checkpoint
    if not isinstance(checkpoint, dict):
        raise WeightsInvalid("PH-0559 not a dict of tensors", where=where, got=kind_of(checkpoint), next=SAVE)
    found = [key for key, value in checkpoint.items() if _is_state_dict(value)]
    if len(found) != 1:
        what = "PH-0560 checkpoint holds several state dicts" if found else "PH-0561 checkpoint holds no state dict"
        raise WeightsInvalid(what, where=where, got=few([ascii(key) for key in found or checkpoint]), next=SAVE)
    if found[0] not in NESTED:
        want = " or ".join(NESTED)
        raise WeightsInvalid(
            "PH-0562 state dict is nested under a strange key", where=where, got=ascii(found[0]), want=want, next=SAVE
        )
    return found[0], checkpoint[found[0]]


def _is_state_dict(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and bool(value)
        and all(type(key) is str and isinstance(item, StoredTensor) for key, item in value.items())
    )


def _same_reading(where: str, stored: Mapping[str, StoredTensor], tensors: Any) -> None:
    """Two readers, one meaning."""
    if not isinstance(tensors, dict) or tensors.keys() != stored.keys():
        raise UnsafeWeights("PH-0556 torch reads other names than the archive holds", where=where, next=SAVE)
    for name, want in stored.items():
        tensor = tensors[name]
        if type(tensor) not in (torch.Tensor, torch.nn.Parameter) or tensor.layout is not torch.strided:
            raise UnsafeWeights(
                "PH-0557 not a plain tensor", where=f"{where}: {name}", got=type(tensor).__name__, next=SAVE
            )
        got = (dtype_name(tensor.dtype), tuple(tensor.shape), tensor.stride(), tensor.storage_offset())
        if got != (want.dtype, want.shape, want.stride, want.offset):
            raise UnsafeWeights(
                "PH-0558 torch reads another tensor than the archive holds", where=f"{where}: {name}", next=SAVE
            )


def _is_canonical(path: Path, ties: Mapping[str, str]) -> bool:
    header = read_header(path)
    return header.metadata == dict(ties) and starts_with(path, canonical_header(header))
