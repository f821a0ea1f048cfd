"""Sign: what was committed is signed as a whole, with its provenance, here or by a worker that does nothing else.

A signature is a statement about a record that stands already, so it can be made again: by another key, or for releases
from before there was one. No channel moves to a release that is to be signed and is not.
"""

from __future__ import annotations

from pathlib import Path

from infra.worker.context import worker_context
from infra.worker.signer import Signer, own_signer
from packhouse.digest import digest_bytes, short
from packhouse.errors import Contention, SignerUnavailable
from packhouse.release.lookup import Found, find, manifest_bytes, parsed_manifest
from packhouse.release.manifest import IMAGE_BUNDLES, MANIFEST, PROVENANCE, RECORD, SIGNATURE, Manifest, Record, dump
from packhouse.trust.provenance import about, provenance, signed_image, statement
from packhouse.trust.signatures import files, is_signed, unchecked_files
from tasks._support.pipeline_task import one_line
from tasks.signing.sign_pool import sent


def sign(record: Record) -> None:
    """Leaves a signature that covers this very record alone, which the run has just made, or found signed.

    Raises SignerUnavailable, RunLost, DigestMismatch; Contention: another record stands there by now."""
    where, digest = f"{record.model}/{record.release}", digest_bytes(dump(record))
    with one_line(record.model, "sign") as line:
        found = find(worker_context().store, where)
        insist(found, digest)
        known = worker_context().known
        if is_signed(found, known):
            line.note("signed already")
        elif worker_context().settings.sign_pool:
            asked = f"{where}#{digest.removeprefix('sha256:')}"
            line.note(sent([asked], done=lambda: is_signed(find(worker_context().store, where), known)))
        else:
            line.note(sign_release(found))


def insist(found: Found, record: str) -> None:
    """Raises Contention: the record that stands there has another digest."""
    if (got := digest_bytes(found.record_bytes)) != record:
        raise Contention(
            "PH-0595 another record stands here by now", where=found.name, got=short(got), want=short(record)
        )


def sign_release(found: Found) -> str:
    """Every byte is read from the store and hashed against the manifest first; the signature is over what was read.

    Raises KeyAbsent: this process has no key. DigestMismatch, ReleaseInvalid: the release is not what its
    record says; then it is not signed."""
    by = own_signer(worker_context().settings)
    record = found.record
    manifest_data = manifest_bytes(found, record)
    manifest = parsed_manifest(manifest_data, found, record)
    with worker_context().cache.step("sign") as folder:
        whole = folder / record.model
        whole.mkdir()
        told = provenance(record, manifest)
        for name, data in {RECORD: found.record_bytes, MANIFEST: manifest_data, PROVENANCE: told}.items():
            (whole / name).write_bytes(data)
        for artifact in manifest.artifacts:
            found.save(artifact, whole / artifact.name)
        bundle = _signed(by, whole, found, manifest)
    made = _about_image(by, record, manifest) | {PROVENANCE: told, SIGNATURE: bundle}
    for name, data in made.items():
        found.store.put(f"{found.prefix}{name}", data, digest=digest_bytes(data))
    return f"{len(manifest.artifacts)} files"


def _signed(by: Signer, whole: Path, found: Found, manifest: Manifest) -> bytes:
    """What the library read of the folder is what the manifest names: a file may have changed in between."""
    bundle = by.sign_folder(whole)
    named = unchecked_files(bundle)
    told = named.pop(PROVENANCE, "")
    if named != files(found.record_bytes, manifest) or told != digest_bytes((whole / PROVENANCE).read_bytes()):
        raise SignerUnavailable("PH-0594 signed something else than it was given", where=manifest.model)
    return bundle


def _about_image(by: Signer, record: Record, manifest: Manifest) -> dict[str, bytes]:
    """The file with what is signed about the release's image, if any: that it is ours, and what it is from."""
    if not record.image:
        return {}
    name, digest = record.image.repository, record.image.digest
    said = [signed_image(name, digest), about(statement(record, manifest), name, digest)]
    return {IMAGE_BUNDLES: b"\n".join(by.sign_statement(each) for each in said) + b"\n"}
