"""What the fork server does once, so that no job has to: import the heavy libraries and run the exporter one time.

The server must stay single-threaded, because a fork copies only the thread that forks and leaves the others' locks
held. Hence ONNX Runtime's telemetry (a thread, a socket and a file in the home folder since 1.29) and tqdm's monitor
are off, and nothing here creates an ONNX Runtime session, runs torch in parallel, or touches torch.jit, whose
name counters would then differ from those of a fresh process.
"""

from __future__ import annotations

import functools
import gc
import importlib
import logging
import os
import sys
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

IMPORTS = (
    "onnx", "onnxruntime", "onnxruntime.quantization", "onnxscript", "safetensors.torch", "torch.export",
    "packhouse.parity.trained_outputs", "packhouse.parity.replay", "packhouse.weights.safetensors_torch",
)  # fmt: skip
"""The last three bring in nearly all that jobs import of packhouse, and pydantic: a sixth of a second a job."""


def imports(preload: Iterable[str] = ()) -> None:
    """The first part, without which no job can start.

    preload: further modules, such as those that register architectures. One that can not be imported is left to the
    job that needs it, which says so in its own name.
    """
    import torch

    torch.set_num_threads(1)
    for name in IMPORTS:
        importlib.import_module(name)
    for name in preload:
        _try_to_import(name)
    _no_progress_thread()
    _remember_registry()


def exporter() -> None:
    """The second part, two seconds in which a first job that exports nothing can run already: one tiny export. Then
    freeze what is there, so that a child's collector does not copy its pages.

    Torch leaves a variable of the environment behind. It is taken away, since all jobs get the same environment."""
    import torch

    before = dict(os.environ)
    _export_something(torch.nn.Linear(2, 2).eval(), torch.zeros(2, 2))
    for name in os.environ.keys() - before.keys():
        del os.environ[name]
    gc.collect()
    gc.freeze()


def _try_to_import(name: str) -> None:
    try:
        importlib.import_module(name)
    except Exception as error:  # whatever a module of somebody's raises when it is imported
        print(f"{name} can not be imported: {type(error).__name__}: {error}", file=sys.stderr)  # noqa: T201 - the log


def _remember_registry() -> None:
    """The exporter parses its 500 operator functions anew for every export, half a second of each. A child makes
    one export, so one registry, made here and inherited, serves every child; its bytes are the same.

    A private function of torch 2.13; where it is gone, exports are slower and nothing else.
    """
    from torch.onnx._internal.exporter import _registration

    registry: Any = getattr(_registration, "ONNXRegistry", None)
    make = getattr(registry, "from_torchlib", None)
    if make is not None:
        registry.from_torchlib = staticmethod(functools.cache(make))


def threads() -> int:
    return len(list(Path(f"/proc/{os.getpid()}/task").iterdir()))


def _no_progress_thread() -> None:
    try:
        tqdm = importlib.import_module("tqdm")
    except ImportError:
        return  # no tqdm, no thread
    tqdm.tqdm.monitor_interval = 0


def _export_something(model: object, example: object) -> None:
    from torch.export import Dim
    from torch.onnx import export

    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        export(model, (example,), dynamo=True, dynamic_shapes=({0: Dim("batch")},), verbose=False)  # type: ignore[arg-type]
    logging.disable(level)
