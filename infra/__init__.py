"""The places that a worker talks to, one folder each. docs/architecture.md."""

import sys

_NOW = {
    "infra.again": "infra.worker.rerun",
    "infra.serving": "packhouse.serving",
    "infra.toolchain": "infra.worker.release_inputs",
    "infra.webhook": "infra.mlflow.webhook",
}
"""Programs that 0.1 documented as `python -m`."""


class _Moved:
    """Says the new name of a program in one line, instead of that there is no such module."""

    @staticmethod
    def find_spec(name: str, *_: object) -> None:
        if name in _NOW:
            raise ModuleNotFoundError(f"{name} is now {_NOW[name]}", name=name)


sys.meta_path.insert(0, _Moved)  # before an old folder of the same name, which git leaves with its bytecode
