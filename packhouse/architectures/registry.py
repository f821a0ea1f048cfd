"""The registry of architectures: the entry point group `packhouse.architectures` of installed packages.

A spec names an architecture; only a package that an operator installed on the worker can provide it. Nothing is
ever imported because a bucket said so.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from packhouse.architectures.code_digest import code_digest, module_digests
from packhouse.digest import digest_file, digest_files
from packhouse.errors import ArchitectureUnknown

if TYPE_CHECKING:
    import torch

GROUP = "packhouse.architectures"


class Builder(Protocol):
    """What an entry point of the group `packhouse.architectures` is: a class of modules, or a function that makes one.

    The package that registers it must be installed on the workers. Its version, its code and the versions of what it
    requires are part of a release's id.
    """

    def __call__(self, **arguments: Any) -> torch.nn.Module:
        """Makes the module that the staged weights are loaded into.

        Args:
            **arguments: `[architecture] arguments` of package.toml: text, numbers, flags, lists and tables.

        Returns:
            A module in float32, on the CPU. Its `state_dict` has the names and shapes of the staged weights. Its
            `forward` takes the spec's inputs by position, as preprocessing leaves them. It returns a tensor, or a
            tuple, list or dict of tensors in the order of the spec's outputs.

        Raises:
            Exception: Any exception refuses the arguments, and the model with them.
        """
        ...


def find(name: str) -> importlib.metadata.EntryPoint:
    """Finds the entry point of an architecture, without importing its package.

    Args:
        name: The architecture's name in package.toml.

    Returns:
        The entry point. Its `load` gives the builder.

    Raises:
        ArchitectureUnknown: No installed package registers the name, or two packages do.
    """
    points = tuple(importlib.metadata.entry_points(group=GROUP))
    found = [point for point in points if point.name == name]
    if len(found) == 1:
        return found[0]
    if found:
        packages = ", ".join(sorted(point.dist.name for point in found if point.dist))
        raise ArchitectureUnknown("PH-0106 registered twice", where=f"architecture {name!r}", got=packages)
    known = ", ".join(sorted({point.name for point in points})) or "none"
    raise ArchitectureUnknown(
        "PH-0105 not registered on this machine",
        where=f"architecture {name!r}",
        got=f"these: {known}",
        next=f"install the package whose entry point group {GROUP!r} has it",
    )


def build(name: str, arguments: dict[str, Any]) -> torch.nn.Module:
    """Builds a module with the builder that is registered for it.

    Args:
        name: The architecture's name in package.toml.
        arguments: Keyword arguments of its builder.

    Returns:
        A new module in eval mode.

    Raises:
        ArchitectureUnknown: The architecture is not registered, or its builder refuses the arguments.
    """
    point = find(name)
    try:
        builder: Builder = point.load()
        module = builder(**arguments)
        module.eval()
    except Exception as error:  # the builder is somebody's code: whatever it raises is about these arguments
        raise ArchitectureUnknown(
            f"PH-0104 can not be built: {type(error).__name__}: {error}", where=f"architecture {name!r}"
        ) from error
    return module


def fingerprint(name: str) -> dict[str, Any]:
    """What decides how the architecture behaves. Imports nothing of its package.

    Args:
        name: The architecture's name in package.toml.

    Returns:
        Plain JSON: `name`, `distribution`, `version`, `code` (a digest), and `requires` (distribution -> version, of
        those that it requires and that are installed). The digest of an installed package is over the bytes of its
        source files. That of packhouse's own builders is over syntax trees, so that comments change nothing.

    Raises:
        ArchitectureUnknown: The architecture is not registered, or its package can not be found.
    """
    point = find(name)
    dist = point.dist
    ours = point.module.startswith("packhouse.")
    return {
        "name": name,
        "distribution": dist.name if dist else "",
        "version": dist.version if dist else "",
        "code": _own_digest(point.module) if ours else source_digest(point.module.split(".")[0]),
        "requires": required(dist, point.extras, only_extras=ours),
    }


def required(
    dist: importlib.metadata.Distribution | None, extras: Collection[str], *, only_extras: bool
) -> dict[str, str]:
    """With those of the extras that the entry point names; others are somebody else's choice."""
    wanted = tuple(f'extra == "{extra}"' for extra in extras)
    every = dist.requires or [] if dist else []
    lines = [line for line in every if line.endswith(wanted) or ("extra ==" not in line and not only_extras)]
    names = {re.split(r"[\s;<>=!~\[(@]", line, maxsplit=1)[0].lower() for line in lines}
    installed = {found.name.lower(): found.version for found in importlib.metadata.distributions() if found.name}
    return {name: installed[name] for name in sorted(names & installed.keys())}


def _own_digest(module: str) -> str:
    """Over the builder and all of packhouse that it imports."""
    root = Path(__file__).resolve().parent.parent.parent
    return code_digest(module_digests(root, [module], packages={"packhouse"}, ends={"packhouse"}))


def source_digest(package: str) -> str:
    """The digest over the names and bytes of a top-level package's `.py` files.

    Comments count: we do not know the package's code, it may read its own source, and TorchScript reads some comments.
    """
    spec = importlib.util.find_spec(package)
    if spec is None:
        raise ArchitectureUnknown(f"PH-0103 package {package!r} can not be found", where="architecture")
    if not spec.submodule_search_locations:
        return digest_file(Path(str(spec.origin)))
    roots = map(Path, spec.submodule_search_locations)
    return digest_files({str(path.relative_to(root)): path for root in roots for path in root.rglob("*.py")})
