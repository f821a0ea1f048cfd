"""Register: a release becomes a version of a model in MLflow, and the alias of the channel's name follows the channel.

After the channel: what MLflow does not take, or not now, makes no release less than it is. The run says what was not
done, and the next run of the same source, or the audit, does it.
"""

from __future__ import annotations

import os
from pathlib import Path

from infra.mlflow.models import IMAGE, MANIFEST, MODEL, RECORD, RELEASE, Models, Origin, alias_of
from infra.mlflow.pyfunc.folder import RELEASE as FOLDER
from infra.mlflow.pyfunc.folder import Ids, write
from infra.settings import settings
from infra.worker.context import worker_context
from packhouse.artifact import Artifact
from packhouse.digest import digest_bytes
from packhouse.errors import Contention, Refused, SpecInvalid, Unavailable
from packhouse.formats.runtime import as_text
from packhouse.formats.table import SERVED
from packhouse.parity.replay import golden_cases
from packhouse.release.contents import needed
from packhouse.release.lookup import Found, find, manifest_bytes, parsed_manifest, read_channel, read_spec
from packhouse.release.manifest import GOLDEN, Record
from packhouse.release.manifest import MANIFEST as MANIFEST_FILE
from packhouse.release.manifest import RECORD as RECORD_FILE
from packhouse.spec.model import SPEC_FILE, Format, parse
from packhouse.spec.sources import checked_source
from tasks._support.pipeline_task import one_line, pipeline_task
from tasks._support.states import Released
from tasks.fetch import download

ATTEMPTS = 8


@pipeline_task("register in MLflow")
def register_mlflow(released: Released, source: str = "") -> tuple[str, ...]:
    """What was done, in words; nothing where all stands already, which costs a few small reads and two requests.
    source: where it was made from, to find the training run.

    Raises Unavailable, SourceNotAllowed: and says that the release stands."""
    try:
        return registered(released.model, released.release, released.channel, source, moves=not released.waiting)
    except (Unavailable, Refused) as error:
        where = f"{released.model}/{released.release}"
        what = f"is released, and not registered in MLflow: {error}"
        kind = Unavailable if isinstance(error, Unavailable) else type(error)
        raise kind(what, where=where, next="the release stands; run it again") from error


def registered(model: str, release: str, channel: str, source: str = "", *, moves: bool = True) -> tuple[str, ...]:
    """As `register`. moves: the channel may move, and so the alias."""
    store = worker_context().store
    name = _name(model, release)
    if not name:
        return ()
    models, done = Models(settings().mlflow_uri), list[str]()
    with one_line(model, "register in MLflow") as line:
        for _ in range(ATTEMPTS if moves else 0):
            pointed = read_channel(store, model, channel)
            version = _version(models, name, model, pointed.release, source, done)
            if models.alias(name, alias_of(channel)) != version:
                models.claim(name, model)
                models.set_alias(name, alias_of(channel), version)
                done.append(f"alias {name}@{alias_of(channel)} on version {version}")
            if read_channel(store, model, channel).serial == pointed.serial:
                break
        else:
            if moves:
                raise Contention(
                    "PH-0111 others keep moving this channel", where=f"{model}@{channel}", next="run it again"
                )
        if not moves or pointed.release != release:
            _version(models, name, model, release, source, done)
        line.note(", ".join(done) or "stands")
    return tuple(done)


def _name(model: str, release: str) -> str:
    """Of the registered model, where the release's spec or the worker asks for one."""
    spec = read_spec(find(worker_context().store, f"{model}/{release}"))
    return spec.mlflow.name if spec.mlflow else (model if settings().mlflow_register else "")


def _version(models: Models, name: str, model: str, release: str, source: str, done: list[str]) -> str:
    """The release's only version: the one there is, or a new one. A run beside this one may make one too, so whoever
    made one looks again; what a run that was killed before it looked has left, the next one finds."""
    there = models.versions_of(name, f"{model}/{release}")
    if not there:
        models.claim(name, model)
        done.append(_new(models, name, model, release, source))
        there = models.versions_of(name, f"{model}/{release}")
        if not there:
            raise Contention(
                "PH-0586 somebody deletes what was registered", where=f"{name} in MLflow", next="run it again"
            )
    version, *others = there
    if others:
        models.claim(name, model)
        models.keep(name, version, others)
        done.append(f"version {', '.join(others)} of {name} deleted: {version} is of the same release")
    return version


def _new(models: Models, name: str, model: str, release: str, source: str) -> str:
    """A version, in words."""
    found = find(worker_context().store, f"{model}/{release}")
    origin = _origin(models, f"{model}/{release}", source)
    with worker_context().cache.step("pyfunc") as folder:
        version = models.register(
            name, model, _tags(found.record, found.record_bytes), origin, lambda ids: pyfunc(found, folder, ids)
        )
    return f"version {version} of {name}" + (f" from run {origin.run}" if origin.run else "")


def _origin(models: Models, release: str, source: str) -> Origin:
    allowed = settings().sources

    def matches(tag: str) -> bool:
        try:
            return checked_source(tag, allowed) == checked_source(source, allowed)
        except Refused:
            return False

    return models.origin(release, matches, source.partition("://")[2].partition("?")[0] or source)


def _tags(record: Record, data: bytes) -> dict[str, str]:
    tags = {
        RELEASE: f"{record.model}/{record.release}",
        MODEL: record.model,
        MANIFEST: record.manifest,
        RECORD: digest_bytes(data),
    }
    return tags | ({IMAGE: record.image.reference} if record.image else {})


def pyfunc(found: Found, folder: Path, ids: Ids = Ids()) -> Path:  # noqa: B008 - frozen
    """The release as a folder that MLflow loads, below `folder`. Each byte is fetched from the store by its digest."""
    record = found.record
    listed = manifest_bytes(found, record)
    manifest = parsed_manifest(listed, found, record)
    release = folder / FOLDER
    release.mkdir()
    served = [made for made in manifest.formats if made.name in SERVED]
    if Format.ONNX not in {made.name for made in served}:
        raise SpecInvalid("PH-0585 has no ONNX, which is what MLflow gets", where=f"{record.model}/{record.release}")
    for artifact in needed(manifest, served):
        _put(found, artifact, release)
    for name, data in {MANIFEST_FILE: listed, RECORD_FILE: found.record_bytes}.items():
        (release / name).write_bytes(data)
    spec = parse((release / SPEC_FILE).read_bytes())
    cases = golden_cases(release / GOLDEN)
    case = next((case for case in cases if case.real), cases[0])
    made = folder / "model"
    write(made, release, spec, manifest, as_text(case.inputs, manifest.text), ids, record.manifest)
    return made


def _put(found: Found, artifact: Artifact, folder: Path) -> None:
    download(found.store, f"{found.prefix}{artifact.name}", artifact)
    os.link(worker_context().cache.path(artifact), folder / artifact.name)
