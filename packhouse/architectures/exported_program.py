"""Models that are a `.pt2` and need no class: the architecture `program`.

A `.pt2` of torch.export is code. It can also carry pickles, which `torch.export.load` runs, and expressions that it
evaluates; so a worker takes it only from prefixes that its operator trusts, writes it anew from what it has seen, looks
at that, and loads it in a sandboxed child. docs/architectures.md shows how to make one.
"""

from __future__ import annotations

import tempfile
import warnings
import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from packhouse.errors import ArchitectureUnknown, ReleaseInvalid, UnsafeWeights
from packhouse.formats.runtime import refuse_pickles
from packhouse.formats.torch_archive import EXAMPLES, canonical
from packhouse.spec.model import PROGRAM

if TYPE_CHECKING:
    import torch

_SAVE = "torch.export.save(program, ...) of this torch, and packhouse stage"


def build(**_: Any) -> torch.nn.Module:
    """Raises ArchitectureUnknown: there is nothing to build, since the file is the model."""
    raise ArchitectureUnknown(
        "PH-0187 is a file and no class: it can not be built here", where=f"architecture {PROGRAM!r}"
    )


def save(program: torch.export.ExportedProgram, path: Path) -> None:
    """Writes the program without example inputs, which are real samples, and without local paths."""
    import torch

    anonymous(program)
    with tempfile.TemporaryDirectory(prefix="packhouse-program-", dir=path.parent) as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # FutureWarnings of torch's own
        raw = Path(folder) / path.name
        torch.export.save(program, str(raw))
        canonical(raw, path)
    refuse_pickles(path)


def anonymous(program: torch.export.ExportedProgram) -> None:
    """Takes out, in place, the stack traces with their local paths and the example inputs, which are real samples."""
    import torch

    for submodule in program.graph_module.modules():
        if isinstance(submodule, torch.fx.GraphModule):
            for node in submodule.graph.nodes:
                for key in ("stack_trace", "nn_module_stack", "source_fn_stack", "from_node"):
                    node.meta.pop(key, None)
    program._example_inputs = None


def without_examples(source: Path, target: Path) -> None:
    """The same archive without the example inputs that torch.export.save writes, as a pickle. Raises UnsafeWeights:
    it is no archive of torch.export.save, or carries other pickles."""
    _rewritten(source, target, emptied=(EXAMPLES,))
    _looked_at(target, source.name)


def taken(source: Path, target: Path) -> None:
    """Writes a foreign archive anew, so that one reader's understanding of it is the only one. What torch loads is
    `target`. Raises UnsafeWeights: it is no archive of torch.export.save, or carries a pickle or an expression."""
    _rewritten(source, target)
    _looked_at(target, source.name)


def load(path: Path) -> torch.nn.Module:
    """The program as a module in eval mode, as it was exported. path: what `taken` or `save` wrote.

    Raises UnsafeWeights: torch does not load it."""
    import torch

    refuse_pickles(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # FutureWarnings of torch's own loader
        try:
            module = torch.export.load(str(path)).module()
        except Exception as error:  # whatever torch's loader raises on foreign bytes, it is the file's fault
            words = " ".join(str(error).split())[:200]
            got = f"{type(error).__name__}: {words}"
            raise UnsafeWeights("PH-0186 torch.export.load refuses it", where=path.name, got=got, next=_SAVE) from error
    for part in module.modules():
        part.training = False
    module.train = lambda mode=True: module  # type: ignore[method-assign]  # torch's own raises
    module.eval = lambda: module  # type: ignore[method-assign]
    return module


def unchecked(module: torch.nn.Module) -> torch.nn.Module:
    """The same without the check of its inputs' sizes, which a trace can not follow."""
    for part in module.modules():
        for key, hook in list(part._forward_pre_hooks.items()):
            if getattr(hook, "__name__", "") == "_check_input_constraints_pre_hook":
                del part._forward_pre_hooks[key]
    return module


_BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError)
"""What zipfile raises on an archive that is broken, encrypted or of another making."""


def _rewritten(source: Path, target: Path, emptied: tuple[str, ...] = ()) -> None:
    try:
        _check_entries(source)
        canonical(source, target, emptied=emptied)
    except (*_BROKEN, ValueError, IndexError) as error:
        what = "PH-0185 is not an archive that torch.export.save writes"
        raise UnsafeWeights(what, where=source.name, got=str(error)[:120], next=_SAVE) from error


def _check_entries(source: Path) -> None:
    """Raises ValueError: entries that two readers may understand in two ways, or that grow when they are read."""
    with zipfile.ZipFile(source) as archive:
        names = [entry.filename.partition("/")[2] for entry in archive.infolist()]
        if len(set(names)) != len(names) or "" in names:
            raise ValueError("an entry that stands there twice, or outside of the one folder")
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
            raise ValueError("a compressed entry")
        if sum(entry.file_size for entry in archive.infolist()) > source.stat().st_size:
            raise ValueError("entries that overlap")


def _looked_at(path: Path, where: str) -> None:
    try:
        refuse_pickles(path)
    except ReleaseInvalid as error:
        place = f"{where}: {error.where.partition(': ')[2]}".removesuffix(": ")
        next_step = "packhouse stage takes example inputs out" if EXAMPLES in error.where else _SAVE
        raise UnsafeWeights(error.coded, where=place, got=error.got, next=next_step) from error
