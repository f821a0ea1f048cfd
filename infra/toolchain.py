"""What decides a release's bytes besides its source: our own code, the libraries and the class of processor."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

from infra import images
from packhouse import architectures
from packhouse.digest import digest_files
from packhouse.manifest import ArchitectureCode, Inputs
from packhouse.spec import Spec

ROOT = Path(__file__).resolve().parent.parent

CODE = (
    "tasks/jobs",
    "tasks/decide.py",
    "tasks/export.py",
    "tasks/judge.py",
    "tasks/measure.py",
    "tasks/pack.py",
    "packhouse/*.py",
)
_SHOWN = {"report", "page", "charts"}
_COMMANDS = {"__init__", "__main__", "cli", "exits", "staging", "verify", "releases", "channels"}
_SIGNED = {"dsse", "signatures", "foreign_signers", "provenance"}
_CONSUMED = {"fetching", "sessions", "processors"}
NOT_CODE = frozenset(f"packhouse/{name}.py" for name in _COMMANDS | _SHOWN | _SIGNED | _CONSUMED)
"""What no byte of a release passes through on a worker; a change there must not release every model again."""

LIBRARIES = ("ml-dtypes", "numpy", "onnx", "onnx-ir", "onnxruntime", "onnxscript", "protobuf", "safetensors", "torch")

# The first that a processor has names its class: from here on INT8 and fp32 kernels, and so rounding, differ.
_X86 = (("avx512_vnni", "avx512vnni"), ("avx_vnni", "avxvnni"), ("avx512f", "avx512"), ("avx2", "avx2"))
_ARM = (("i8mm", "i8mm"), ("asimddp", "dotprod"))


def release_inputs(
    spec: Spec,
    spec_digest: str,
    *,
    runtime_image: str = "",
    fingerprint: Callable[[str], dict[str, Any]] = architectures.fingerprint,
) -> Inputs:
    """runtime_image: what images are built on, by digest; looked at where the spec wants an image.
    fingerprint: one that remembers, where many models are planned at once.

    Raises ArchitectureUnknown: no installed package registers the spec's architecture. ImageInvalid: the spec wants an
    image, and there is none to build on."""
    return Inputs(
        spec=spec_digest,
        weights=spec.weights.digest,
        samples=spec.samples.digest,
        architecture=ArchitectureCode(**fingerprint(spec.architecture.name)),
        code=_code(),
        libraries=_libraries() | {"python": ".".join(platform.python_version_tuple()[:2])},
        device=device_class(),
        runtime=images.runtime(runtime_image).digest if spec.image else None,
    )


@lru_cache(maxsize=1)
def device_class() -> str:
    """Such as `x86_64-avx512vnni`."""
    machine = platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return machine
    flags = set(next((line for line in lines if line.startswith(("flags", "Features"))), "").split())
    known = _ARM if machine in ("aarch64", "arm64") else _X86
    return next((f"{machine}-{name}" for flag, name in known if flag in flags), machine)


@lru_cache(maxsize=1)
def _code() -> str:
    files = {path for pattern in CODE for path in _python(pattern)}
    named = {path.relative_to(ROOT).as_posix(): path for path in files}
    return digest_files({name: path for name, path in named.items() if name not in NOT_CODE})


def _python(pattern: str) -> list[Path]:
    folder = ROOT / pattern
    return list(folder.rglob("*.py")) if folder.is_dir() else list(ROOT.glob(pattern))


@lru_cache(maxsize=1)
def _libraries() -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in LIBRARIES}
