"""Fetches what an image is built from, so that the build itself needs no network. `make wheels`, `make serving-wheels`.

`python -m infra.deploy.wheels [KIND] [PACKAGE ...]` fills `wheels/KIND` with wheels at the versions of constraints.txt,
and writes their digests to `requirements.lock` beside them. KIND: cpu or cuda for the worker's image, serving-cpu or
serving-cuda for the runtime image. PACKAGE: a folder or a requirement, such as the package that holds your own
architectures. Run again, every wheel that the lock already names must have the same bytes.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path

from packhouse import exit_status
from packhouse.digest import digest_file
from packhouse.errors import DigestMismatch, NotFound, PackhouseError, Unavailable

ROOT = Path(__file__).resolve().parent.parent.parent
CONSTRAINTS = ROOT / "constraints.txt"
LOCK = "requirements.lock"
BUILD = "setuptools>=80"
"""Writes our own metadata in the image."""
OURS = "packhouse"
"""Comes with the code, which changes more often than all else in the image."""
INIT = "dumb-init==1.2.5.post1"
"""Passes signals on and reaps children, as a container's first process should; a wheel, so that no base needs one."""


class Kind(StrEnum):
    CPU = "cpu"
    CUDA = "cuda"
    SERVING_CPU = "serving-cpu"
    SERVING_CUDA = "serving-cuda"

    @property
    def wanted(self) -> tuple[str, ...]:
        """What pip is asked for."""
        serving = (f"{ROOT}[serving]", INIT)
        extra = {Kind.SERVING_CPU: serving, Kind.SERVING_CUDA: (*serving, _gpu_runtime())}
        return extra.get(self, (f"{ROOT}[worker,cluster]", BUILD))


TORCH = {Kind.CUDA: "torch==={version}"}
"""=== takes exactly this: an index of CPU builds can not answer for the CUDA build."""
EPOCH = "315532800"
"""1980, where zip files begin: a wheel that is built here has the same bytes every time."""


def fetch(kind: Kind, into: Path, packages: Sequence[str] = ()) -> Path:
    """The lock. Wheels that are there already are replaced, all of them or none.

    Raises DigestMismatch: a wheel has other bytes than the lock of the last time says. NotFound: no such folder.
    Unavailable: pip could not get or build them, or torch has no such build on the index.
    """
    for package in packages:
        if package.startswith((".", "/")) and not Path(package).is_dir():
            raise NotFound("PH-0385 no such folder", where=package)
    into.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{into.name}-", dir=into.parent) as folder:
        new = Path(folder) / into.name
        _download(kind, new, packages)
        if kind is Kind.SERVING_CUDA:
            _without_cpu_runtime(new)
        new.chmod(0o755)
        locked = digests(new)
        _same(locked, read(into / LOCK))
        (new / LOCK).write_text(render(locked))
        if into.exists():
            shutil.rmtree(into)
        new.rename(into)
    return into / LOCK


def digests(folder: Path) -> dict[str, str]:
    """`name==version` and the digest of each wheel, but our own."""
    found = {}
    for wheel in sorted(folder.glob("*.whl")):
        name, version = wheel.name.split("-")[:2]
        if name != OURS:
            found[f"{name.replace('_', '-').lower()}=={version}"] = digest_file(wheel)
    return found


def render(locked: Mapping[str, str]) -> str:
    """As pip's --require-hashes reads it. Law: read(render(d)) == d."""
    return "".join(f"{name} --hash={digest}\n" for name, digest in sorted(locked.items()))


def read(lock: Path) -> dict[str, str]:
    lines = lock.read_text().splitlines() if lock.is_file() else []
    return {name: digest for name, _, digest in (line.partition(" --hash=") for line in lines if line.strip())}


def constraints(kind: Kind) -> str:
    """constraints.txt, with the build of torch that is meant."""
    torch = TORCH.get(kind, "torch=={version}+cpu")
    text = CONSTRAINTS.read_text()
    return re.sub(r"^torch==(\S+)$", lambda found: torch.format(version=found[1]), text, flags=re.MULTILINE)


def _gpu_runtime() -> str:
    """ONNX Runtime's CUDA build at the same version."""
    found = re.search(r"^onnxruntime==(\S+)$", CONSTRAINTS.read_text(), re.MULTILINE)
    assert found is not None
    return f"onnxruntime-gpu[cuda,cudnn]=={found[1]}"


def _without_cpu_runtime(folder: Path) -> None:
    """Both builds have the same files: the later one would overwrite the other."""
    for wheel in folder.glob("onnxruntime-*.whl"):
        wheel.unlink()


def _download(kind: Kind, into: Path, packages: Sequence[str]) -> None:
    """`pip wheel` and not `pip download`: what has no wheel is built here, where there is a network."""
    pins = into.parent / "constraints.txt"
    pins.write_text(constraints(kind))
    command = [sys.executable, "-m", "pip", "wheel", "--disable-pip-version-check", "--no-input", "--quiet"]
    command += ["--wheel-dir", str(into), "--constraint", str(pins), *kind.wanted, *packages]
    scratch = into.parent / "setuptools.cfg"  # else setuptools leaves, and finds again, a `build` in each package
    scratch.write_text(f"[build]\nbuild_base={into.parent / 'build'}\n")
    environment = os.environ | {"SOURCE_DATE_EPOCH": EPOCH, "DIST_EXTRA_CONFIG": str(scratch)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        errors = [line.removeprefix("ERROR: ") for line in done.stderr.splitlines() if line.startswith("ERROR")]
        raise Unavailable(
            "PH-0384 pip could not get the wheels",
            where=str(into.name),
            got=" ".join(errors)[:500] or "no words",
            next="PIP_EXTRA_INDEX_URL names a further index, such as PyTorch's of CPU builds"
            if kind is Kind.CPU
            else "",
        )


def _same(locked: Mapping[str, str], before: Mapping[str, str]) -> None:
    for name in locked.keys() & before.keys():
        if locked[name] != before[name]:
            got, want = locked[name], before[name]
            next_step = f"remove {LOCK} if you meant to take these"
            raise DigestMismatch("PH-0383 other bytes than last time", where=name, got=got, want=want, next=next_step)


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m infra.deploy.wheels", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("kind", nargs="?", type=Kind, default=Kind.CPU, help=f"{', '.join(Kind)}; default: cpu")
    parser.add_argument("--into", type=Path, help="default: wheels/KIND in the repository")
    parser.add_argument("packages", nargs="*", metavar="PACKAGE", help="your own packages: folders or requirements")
    options = parser.parse_args(arguments)
    into = (options.into or ROOT / "wheels" / options.kind).resolve()
    try:
        lock = fetch(options.kind, into, options.packages)
    except PackhouseError as error:
        return exit_status.said(error, verbose=False)
    sys.stdout.write(f"{len(read(lock))} wheels in {into}, locked by {lock.name}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
