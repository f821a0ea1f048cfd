"""packhouse: from trained weights to a verified release.

`packhouse.stage` ends a training script; `packhouse.fetch` begins what uses a release, and `packhouse.open_session`
opens it. Importing this brings in neither torch nor an orchestrator: each name is imported when it is first used.
"""

import importlib
import importlib.util
import sys
import warnings
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec
    from types import ModuleType

    from packhouse.consume.fetch import Fetched, fetch
    from packhouse.consume.session import open_session
    from packhouse.training.samples import Standardise
    from packhouse.training.source import Staged
    from packhouse.training.staging import stage

__all__ = ["Fetched", "Staged", "Standardise", "fetch", "open_session", "stage"]
__version__ = "0.1.0"

_HOMES = {
    "Fetched": "consume.fetch",
    "Staged": "training.source",
    "Standardise": "training.samples",
    "fetch": "consume.fetch",
    "open_session": "consume.session",
    "stage": "training.staging",
}

_MOVED = {
    "packhouse.preprocessing": "packhouse.training.preprocessing",
    "packhouse.pretrained": "packhouse.architectures.transformers",
}
"""Modules that 0.1 documented, by their names of then. They go with 1.0."""


class _Moved:
    """Finds and loads what `_MOVED` names, with a warning that says the new name."""

    @staticmethod
    def find_spec(name: str, *_: object) -> "ModuleSpec | None":
        if name not in _MOVED:
            return None
        warnings.warn(f"{name} is now {_MOVED[name]}", DeprecationWarning, stacklevel=2)
        return importlib.util.spec_from_loader(name, _Moved)  # type: ignore[arg-type]

    @staticmethod
    def create_module(_: "ModuleSpec") -> None:
        """The default."""

    @staticmethod
    def exec_module(module: "ModuleType") -> None:
        now = importlib.import_module(_MOVED[module.__name__])
        vars(module).update({name: value for name, value in vars(now).items() if not name.startswith("__")})


sys.meta_path.append(_Moved)

if not TYPE_CHECKING:  # else a type checker would believe that every name is there

    def __getattr__(name: str) -> object:
        """A public name, or one of our modules: `packhouse.errors` works after `import packhouse`, as it always did."""
        if name in _HOMES:
            value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
            globals()[name] = value
            return value
        if not name.startswith("_"):
            try:
                return importlib.import_module(f"{__name__}.{name}")
            except ModuleNotFoundError as error:
                if error.name != f"{__name__}.{name}":
                    raise
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
