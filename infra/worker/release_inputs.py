"""What decides a release's bytes besides its source: our own code, the libraries and the class of processor."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from infra.images import builders
from infra.sandbox.client import FIXED, NO_GPU, PACKHOUSE
from infra.sandbox.request import Limits
from packhouse.architectures import registry
from packhouse.architectures.code_digest import code_digest, module_digests
from packhouse.formats import installed
from packhouse.formats.table import ROWS
from packhouse.release.manifest import ArchitectureCode, FormatPackage, Inputs
from packhouse.spec.model import Spec

ROOT = Path(__file__).resolve().parent.parent.parent

PACKAGES = frozenset({"packhouse", "tasks"})
"""What is followed into. Modules of infra carry bytes and confine jobs: what they fix for a job is counted as data."""

DECIDING = (
    "cuda.parity_cuda",
    "cuda.run_batch",
    "export",
    "judge",
    "measure",
    "pack",
    "quantise",
    "reference_outputs",
    "validate_weights",
)
"""Modules of tasks that decide what a manifest says, or which of a job's files are released."""

NOT_COUNTED = frozenset(
    {
        "packhouse",
        "packhouse.release.promotion",
        "packhouse.spec.policy",
        "packhouse.release.schema1",
        "packhouse.release.store_layout",
        "packhouse.spec.supported",
        "tasks.cuda.cuda_pool",
        "tasks.fetch",
        "tasks._support.pipeline_task",
    }
)
"""Imported by what counts, but no byte depends on them. `packhouse` itself: names for people, each imported when it is
first used. The others: where objects lie, when a channel may move, what old manifests are read by, how bytes travel
with their digests compared, and how Prefect runs a stage."""

PLACES = frozenset({"HOME", "PYTHONPATH"})
"""Fixed by the sandbox, too, but different on each machine."""

LIBRARIES = ("ml-dtypes", "numpy", "onnx", "onnx-ir", "onnxruntime", "onnxscript", "protobuf", "safetensors", "torch")

# The first that a processor has names its class: from here on INT8 and fp32 kernels, and so rounding, differ.
_X86 = (("avx512_vnni", "avx512vnni"), ("avx_vnni", "avxvnni"), ("avx512f", "avx512"), ("avx2", "avx2"))
_ARM = (("i8mm", "i8mm"), ("asimddp", "dotprod"))


def release_inputs(
    spec: Spec,
    spec_digest: str,
    *,
    runtime_image: str = "",
    fingerprint: Callable[[str], dict[str, Any]] = registry.fingerprint,
) -> Inputs:
    """runtime_image: what images are built on, by digest; looked at where the spec wants an image.
    fingerprint: one that remembers, where many models are planned at once.

    Raises ArchitectureUnknown: no installed package registers the spec's architecture. ImageInvalid: the spec wants an
    image, and there is none to build on."""
    added = _added(spec)
    return Inputs(
        spec=spec_digest,
        weights=spec.weights.digest,
        samples=spec.samples.digest,
        architecture=ArchitectureCode(**fingerprint(spec.architecture.name)),
        code=_code(),
        libraries=_required(added) | _libraries() | {"python": ".".join(platform.python_version_tuple()[:2])},
        device=device_class(),
        runtime=builders.runtime(runtime_image).digest if spec.image else None,
        environment=fixed_environment(),
        format_packages={
            each.distribution: FormatPackage(
                version=each.version, digest=registry.source_digest(each.point.module.split(".")[0])
            )
            for each in added
        },
    )


def _added(spec: Spec) -> list[installed.Added]:
    """The formats of other packages that this model asks for: what else is installed changes no id of it."""
    found = (installed.find(name) for name in spec.formats.wanted if name not in ROWS)
    return [each for each in found if each]


def _required(added: list[installed.Added]) -> dict[str, str]:
    """The versions of what the packages require and that is installed; packhouse's own code is counted by itself."""
    every: dict[str, str] = {}
    for each in added:
        every |= registry.required(each.point.dist, each.point.extras, only_extras=False)
    return {name: version for name, version in every.items() if name != "packhouse"}


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


def counted(root: Path = ROOT) -> Mapping[str, str]:
    """The modules whose code can change a byte of a release: what jobs import, and what decides.

    Args:
        root: Where the source lies. A wheel holds packhouse elsewhere than the rest, which changes no digest.

    Returns:
        Dotted name of a module -> digest of its syntax tree.
    """
    jobs = [path.relative_to(root).with_suffix("").parts for path in (root / "tasks" / "jobs").rglob("*.py")]
    starts = [".".join(parts) for parts in jobs if parts[-1] != "__init__"]
    starts += [f"tasks.{name}" for name in DECIDING]
    elsewhere = {} if (root / PACKHOUSE.name).is_dir() else {PACKHOUSE.name: PACKHOUSE.parent}
    return module_digests(root, starts, packages=PACKAGES, ends=NOT_COUNTED, elsewhere=elsewhere)


def fixed_environment() -> dict[str, str]:
    """What the sandbox fixes for each job that makes a release, whatever the worker's own environment is.

    Returns:
        Environment variable, or `torch.num_threads` -> value; without paths of this machine.
    """
    threads = str(Limits().cpu_threads)
    fixed = {name: value for name, value in (FIXED | NO_GPU).items() if name not in PLACES}
    return fixed | {"OMP_NUM_THREADS": threads, "torch.num_threads": threads}


@lru_cache(maxsize=1)
def _code() -> str:
    return code_digest(counted())


@lru_cache(maxsize=1)
def _libraries() -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in LIBRARIES}
