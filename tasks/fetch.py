"""Fetch: streams each object of a source once to the local cache, hashing as it goes. Parses nothing."""

from __future__ import annotations

from infra.worker.context import worker_context
from packhouse.artifact import Artifact
from packhouse.digest import digest_bytes, digest_file
from packhouse.errors import DigestMismatch, LimitExceeded
from packhouse.spec.model import MAX_SPEC_BYTES, SPEC_FILE, File
from packhouse.store import Retrying, Store, open_store
from tasks._support.pipeline_task import one_line, pipeline_task
from tasks._support.states import Fetched, Planned


@pipeline_task("fetch source")
def fetch(planned: Planned) -> Fetched:
    """Raises DigestMismatch: other bytes than the spec names, or another spec than was planned. NotFound, and the
    store's errors."""
    source = Retrying(open_store(planned.source))
    with one_line(planned.model, "fetch source") as line:
        text, _ = source.get(SPEC_FILE, limit=MAX_SPEC_BYTES)
        if digest_bytes(text) != planned.inputs.spec:
            raise DigestMismatch("PH-0541 changed since it was planned", where=SPEC_FILE, next="run it again")
        fetched = Fetched(
            planned=planned,
            spec_file=worker_context().cache.write(text, name=SPEC_FILE, media_type="application/toml"),
            weights=_download(source, planned.spec.weights),
            samples=_download(source, planned.spec.samples),
        )
        line.made(fetched.weights, fetched.samples)
    return fetched


def _download(source: Store, file: File) -> Artifact:
    allowed = worker_context().settings.fetch_bytes
    if file.size > allowed:
        raise LimitExceeded(
            "PH-0540 is larger than this worker fetches", where=file.file, got=f"{file.size:,}", want=f"{allowed:,}"
        )
    artifact = Artifact(name=file.file, digest=file.digest, size=file.size, media_type="application/octet-stream")
    download(source, file.file, artifact)
    return artifact


def download(store: Store, key: str, artifact: Artifact) -> None:
    """To the local cache, unless it is there. Nothing that has another digest ever gets in."""
    cache = worker_context().cache
    if cache.holds(artifact):
        if digest_file(cache.path(artifact)) == artifact.digest:
            return
        cache.forget(artifact)
    with cache.step("fetch") as folder:
        path = folder / artifact.name
        with path.open("wb") as target:
            for chunk in store.read(key, digest=artifact.digest, size=artifact.size):
                target.write(chunk)
        cache.adopt(path, artifact)
