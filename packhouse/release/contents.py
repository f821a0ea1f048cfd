"""A release's folder against its manifest: which files may lie there, which are needed, and which bytes they have.

The rule is the same in a store, in a folder that `fetch` made and in that of a server.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path

from packhouse.artifact import Artifact
from packhouse.digest import digest_file, short
from packhouse.errors import DigestMismatch
from packhouse.release.manifest import GOLDEN, UNDIGESTED, Manifest, Release
from packhouse.spec.model import SPEC_FILE

_AGAIN = "fetch the release again; nothing was read from this file"


def known_names(manifest: Manifest) -> frozenset[str]:
    """The names that a file of the release's folder may have."""
    return frozenset(artifact.name for artifact in manifest.artifacts) | UNDIGESTED


def unknown(there: Iterable[str], manifest: Manifest) -> list[str]:
    """The names of files that are no part of the release, in order."""
    return sorted(set(there) - known_names(manifest))


def missing(there: Collection[str], artifacts: Iterable[Artifact]) -> list[str]:
    """The names of these artifacts that are not there, in order."""
    return sorted(artifact.name for artifact in artifacts if artifact.name not in there)


def needed(manifest: Manifest, formats: Iterable[Release]) -> list[Artifact]:
    """What a server needs of these formats, by name: their files, the spec and the golden cases.

    Raises:
        ReleaseInvalid: The manifest does not name one of them.
    """
    names = {SPEC_FILE, GOLDEN, *(name for made in formats for name in made.files)}
    return [manifest.artifact(name) for name in sorted(names)]


def check_file(path: Path, artifact: Artifact) -> None:
    """Compares a file with what the manifest says of it.

    Raises:
        DigestMismatch: It has other bytes.
        FileNotFoundError: It is not there.
    """
    if (size := path.stat().st_size) != artifact.size:
        got, want = f"{size:,} bytes", f"{artifact.size:,}"
        raise DigestMismatch("PH-0128 size differs", where=path.name, got=got, want=want, next=_AGAIN)
    if (digest := digest_file(path)) != artifact.digest:
        got, want = short(digest), short(artifact.digest)
        raise DigestMismatch("PH-0129 sha256 differs", where=path.name, got=got, want=want, next=_AGAIN)


def is_whole(path: Path, artifact: Artifact) -> bool:
    """Whether the file is there, with the right bytes."""
    try:
        check_file(path, artifact)
    except (DigestMismatch, FileNotFoundError):
        return False
    return True
