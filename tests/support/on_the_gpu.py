"""Models that behave on a device as some do: the true job, with a planted one in the place of the trained model."""

from __future__ import annotations

import os
import signal
from typing import Any

from tasks.jobs import parity_cuda

look = parity_cuda.look


def _planted(change: Any, arguments: dict[str, Any]) -> dict[str, Any]:
    """`change` takes the number of the call and the true answer."""
    true, calls = parity_cuda._torch, iter(range(1_000_000))

    def torch_runner(module: Any, spec: Any, device: str) -> Any:
        runner = true(module, spec, device)
        return lambda inputs: change(next(calls), runner(inputs))

    parity_cuda._torch = torch_runner  # this child only
    return parity_cuda.run(**arguments)


def flaky(**arguments: Any) -> dict[str, Any]:
    """Right in the first pass, and off by a little in the last call of all."""
    cases = len(parity_cuda.read_cases(parity_cuda.Path(arguments["cases"])))

    def change(call: int, answer: Any) -> Any:
        return {name: array * 1.001 for name, array in answer.items()} if call == 2 * cases - 1 else answer

    return _planted(change, arguments)


def too_small(**arguments: Any) -> dict[str, Any]:
    def change(call: int, answer: Any) -> Any:
        raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB.")

    return _planted(change, arguments)


def run(**arguments: Any) -> dict[str, Any]:
    """A runtime that crashes the process on one format of one model."""
    if "torchscript" in arguments["formats"] and b"unlucky" in parity_cuda.Path(arguments["spec"]).read_bytes():
        os.kill(os.getpid(), signal.SIGSEGV)
    return parity_cuda.run(**arguments)
