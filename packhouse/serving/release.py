"""The release that is served: nothing is parsed before its digest is that of the manifest.

The folder holds a part of a release: the manifest, the spec, the golden cases and the ONNX files, or all of it. What
is there must be what the manifest says; what the server does not need may be missing. Nobody may write into the folder
while the server runs: an image's layer, or a volume that is mounted read-only.
"""

from __future__ import annotations

import stat
from dataclasses import dataclass
from pathlib import Path

from packhouse.digest import digest_bytes, short
from packhouse.errors import DigestMismatch, NotFound, ReleaseInvalid, SignatureInvalid
from packhouse.release.choice import PREFERRED, computes_as_judged, preferred
from packhouse.release.contents import check_file, missing, needed, unknown
from packhouse.release.manifest import (
    GOLDEN,
    MANIFEST,
    MAX_DOCUMENT_BYTES,
    PROVENANCE,
    RECORD,
    SIGNATURE,
    Manifest,
    Record,
    Release,
    Selection,
    load,
)
from packhouse.serving.settings import Choice
from packhouse.spec.model import MAX_SPEC_BYTES, SPEC_FILE, Format, Spec, parse
from packhouse.trust.signatures import Trusted, check_bytes


@dataclass(frozen=True)
class Served:
    """A release whose bytes were checked. digest: of the manifest. made: the format that is served."""

    folder: Path
    manifest: Manifest
    digest: str
    spec: Spec
    made: Release

    @property
    def file(self) -> Path:
        return self.folder / self.made.file


def open_release(
    folder: Path,
    *,
    expected: str | None,
    choice: Choice | str,
    vnni: bool,
    cuda: bool,
    golden: bool,
    trusted: Trusted | None = None,
) -> Served:
    """expected: the digest that the manifest must have. trusted: whose signature the release must have, which is over
    its record, so both must be there.

    Raises DigestMismatch, ReleaseInvalid, SignatureInvalid, NotFound, SpecInvalid: the first finding. Unavailable: this
    version does not know the format that was asked for."""
    there = _names(folder)
    if MANIFEST not in there:
        raise NotFound("PH-0519 no release here: there is no manifest", where=str(folder), next="set MODEL_DIR")
    data = _document(folder / MANIFEST, MAX_DOCUMENT_BYTES)
    digest = digest_bytes(data)
    if expected and digest != expected:
        raise DigestMismatch(
            "PH-0520 is not the manifest that PACKHOUSE_MANIFEST_DIGEST names",
            where=MANIFEST,
            got=short(digest),
            want=short(expected),
        )
    manifest = load(Manifest, data, where=MANIFEST)
    _check_files(folder, there, manifest)
    if RECORD in there:
        _check_record(folder / RECORD, manifest, digest)
    if trusted:
        _check_signature(folder, there, manifest, trusted)
    made = chosen(manifest, choice, vnni=vnni, cuda=cuda, there=there)
    wanted = [artifact for artifact in needed(manifest, [made]) if golden or artifact.name != GOLDEN]
    if lacking := missing(there, wanted):
        raise ReleaseInvalid("PH-0521 is in the manifest but not in the folder", where=lacking[0], next="fetch it too")
    return Served(folder, manifest, digest, _spec(folder / SPEC_FILE, manifest), made)


def chosen(manifest: Manifest, choice: Choice | str, *, vnni: bool, cuda: bool, there: set[str]) -> Release:
    """The format to serve. A GPU computes fp32: ONNX Runtime has few INT8 kernels for it. One that must be named is
    never picked by `auto`."""
    by_name = {made.name: made for made in manifest.formats}
    if choice is Choice.AUTO:
        by_name = {name: made for name, made in by_name.items() if made.selection is Selection.AUTO}
        at_hand = [
            made for made in by_name.values() if made.name != Format.ONNX_INT8 or (made.file in there and not cuda)
        ]
        picked = preferred(at_hand, vnni=vnni)
        choice = picked.name if picked else Choice.ONNX
    if choice in by_name and by_name[choice].format is None:
        raise by_name[choice].not_run(manifest.model)
    if choice in by_name and choice in PREFERRED and not computes_as_judged(by_name[choice], vnni=vnni):
        what = "PH-0516 its answers were judged on processors with VNNI, which this one has not"
        raise ReleaseInvalid(what, where=by_name[choice].file, next="set PACKHOUSE_FORMAT to auto or onnx")
    if choice not in by_name or choice not in PREFERRED:
        have = ", ".join(sorted(by_name))
        what = "PH-0517 can not be served" if choice in by_name else "PH-0518 the release has no such format"
        raise ReleaseInvalid(what, where=str(choice), got=have, next="set PACKHOUSE_FORMAT")
    return by_name[choice]


def _names(folder: Path) -> set[str]:
    """Of the plain files there. Raises ReleaseInvalid: something else lies there, such as a link out of the folder."""
    if not folder.is_dir():
        raise NotFound("PH-0385 no such folder", where=str(folder), next="set MODEL_DIR")
    for path in sorted(folder.iterdir()):
        if not stat.S_ISREG(path.lstat().st_mode):
            raise ReleaseInvalid(
                "PH-0515 is no plain file", where=path.name, next="a release is a folder of plain files"
            )
    return {path.name for path in folder.iterdir()}


def _document(path: Path, limit: int) -> bytes:
    if (size := path.stat().st_size) > limit:
        raise ReleaseInvalid("PH-0514 too large", where=path.name, got=f"{size:,} bytes", want=f"at most {limit:,}")
    return path.read_bytes()


def _check_files(folder: Path, there: set[str], manifest: Manifest) -> None:
    if extra := unknown(there, manifest):
        raise ReleaseInvalid(
            "PH-0513 is in the folder but not in the manifest", where=extra[0], next="somebody put it there"
        )
    for artifact in manifest.artifacts:
        if artifact.name in there:
            check_file(folder / artifact.name, artifact)


def _check_record(path: Path, manifest: Manifest, digest: str) -> None:
    record = load(Record, _document(path, MAX_DOCUMENT_BYTES), where=RECORD)
    if (record.model, record.release, record.manifest) != (manifest.model, manifest.release, digest):
        raise DigestMismatch(
            "PH-0348 is not what the record names", where=MANIFEST, got=short(digest), want=short(record.manifest)
        )


def _check_signature(folder: Path, there: set[str], manifest: Manifest, trusted: Trusted) -> None:
    if missing := sorted({RECORD, SIGNATURE} - there):
        raise SignatureInvalid(
            "PH-0512 is not there, and a signature is asked for", where=missing[0], next="fetch it too"
        )
    provenance = _document(folder / PROVENANCE, MAX_DOCUMENT_BYTES) if PROVENANCE in there else None
    bundle, record = (_document(folder / name, MAX_DOCUMENT_BYTES) for name in (SIGNATURE, RECORD))
    check_bytes(bundle, record, manifest, trusted, provenance=provenance)


def _spec(path: Path, manifest: Manifest) -> Spec:
    """The bytes that are parsed are hashed once more: they are these, and not those of another reading."""
    data = _document(path, MAX_SPEC_BYTES)
    if digest_bytes(data) != manifest.inputs.spec:
        raise ReleaseInvalid("PH-0347 is not the spec that the release was made from", where=SPEC_FILE)
    spec = parse(data)
    if spec.model.name != manifest.model:
        raise ReleaseInvalid(
            "PH-0511 is of another model than the manifest", where=SPEC_FILE, got=spec.model.name, want=manifest.model
        )
    return spec
