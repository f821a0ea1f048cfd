"""packhouse: from trained weights to a verified release.

`packhouse.stage` ends a training script; `packhouse.fetch` begins what uses a release, and `packhouse.open_session`
opens it. Importing this brings in neither torch nor an orchestrator: each name is imported when it is first used.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
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
