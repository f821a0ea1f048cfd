"""Verify: proves a release from its bytes alone, in a clean process, without the model's class.

Every digest, then every format loads in its runtime and answers the golden inputs within the release's own
tolerance. The same on a store and on a release that was copied to a plain folder.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from packhouse.digest import digest_bytes
from packhouse.errors import LimitExceeded, NotInstalled, ReleaseInvalid
from packhouse.formats.table import ROWS, row
from packhouse.release.contents import missing, unknown
from packhouse.release.lookup import Found, manifest_bytes, parsed_manifest
from packhouse.release.manifest import MANIFEST, Manifest
from packhouse.trust.signatures import Trusted, check_release

REPLAY_TIMEOUT_S = 1800
PASSED_ON = ("PATH", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH", "SYSTEMROOT")
FIXED = {"ORT_DISABLE_TELEMETRY": "1", "DO_NOT_TRACK": "1", "OMP_NUM_THREADS": "1"}


@dataclass(frozen=True)
class Verified:
    """A release that was proven. record: the digest of its record, which is its proof."""

    model: str
    release: str
    record: str
    formats: tuple[str, ...]
    files: int
    size: int
    signed_by: str = ""


def verify(found: Found, trusted: Trusted | None = None) -> Verified:
    """trusted: whose signature it must have.

    Raises ReleaseInvalid, SignatureInvalid, DigestMismatch, NotFound: what is wrong, the first finding. NotInstalled:
    a runtime is missing. Unavailable: this version does not know one of the formats, and did not run it. And the
    store's errors."""
    record = found.record
    data = manifest_bytes(found, record)
    manifest = parsed_manifest(data, found, record)
    signed_by = check_release(found, manifest, trusted) if trusted else ""
    _check_names(found, manifest)
    _check_runtimes(manifest)
    with tempfile.TemporaryDirectory(prefix="packhouse-verify-") as name:
        folder = Path(name)
        (folder / MANIFEST).write_bytes(data)
        for artifact in manifest.artifacts:
            found.save(artifact, folder / artifact.name)
        replayed = _replayed(folder, found.name)
        for made in manifest.formats:
            if made.format and (refusal := replayed.get(made.name, "PH-0637 nobody ran it")):
                raise ReleaseInvalid(refusal, where=f"{found.name}: {made.name}")
    if unknown := [made for made in manifest.formats if made.format is None]:
        raise unknown[0].not_run(found.name)
    return Verified(
        model=record.model,
        release=record.release,
        record=digest_bytes(found.record_bytes),
        formats=tuple(made.name for made in manifest.formats),
        files=len(manifest.artifacts),
        size=sum(artifact.size for artifact in manifest.artifacts),
        signed_by=signed_by,
    )


def _check_names(found: Found, manifest: Manifest) -> None:
    """Nothing may lie in the folder that nobody vouches for."""
    there = {stat.key.removeprefix(found.prefix) for stat in found.store.list(found.prefix)}
    if lacking := missing(there, manifest.artifacts):
        raise ReleaseInvalid("PH-0343 is in the manifest but not in the release", where=lacking[0])
    if extra := unknown(there, manifest):
        raise ReleaseInvalid(
            "PH-0344 is in the release but not in its manifest", where=extra[0], next="somebody put it there"
        )


def _check_runtimes(manifest: Manifest) -> None:
    """A runtime that is not installed says nothing about the release."""
    rows = [row(made.format) for made in manifest.formats if made.format]
    lacking = {name: each for each in rows for name in each.requires if find_spec(name) is None}
    if lacking:
        added = sorted({each.package for each in lacking.values() if each.name not in ROWS})
        next = f"pip install {' '.join(added)}" if added else "pip install 'packhouse[verify]'"
        raise NotInstalled(f"PH-0342 {' and '.join(sorted(lacking))} is not installed", next=next)


def _replayed(folder: Path, where: str) -> dict[str, str]:
    """Isolated from the caller's folder, environment and user site: what verifies here verifies anywhere."""
    command = [sys.executable, "-I", "-m", "packhouse.parity.replay", str(folder)]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=REPLAY_TIMEOUT_S,
            check=False,
            cwd=folder,
            errors="replace",
            env={name: os.environ[name] for name in PASSED_ON if name in os.environ} | FIXED | {"HOME": str(folder)},
        )
    except subprocess.TimeoutExpired as error:
        raise LimitExceeded(
            "PH-0341 its formats do not come to an end", where=where, want=f"{REPLAY_TIMEOUT_S} s"
        ) from error
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise ReleaseInvalid(f"PH-0340 its formats can not be run here: {last}", where=where)
    return {str(name): str(refusal) for name, refusal in json.loads(done.stdout).items()}
