"""Plan: reads the spec, computes the release's id from its inputs, and sees whether there is a release already."""

from __future__ import annotations

from infra.images import builders
from infra.mlflow.models import check_asked
from infra.settings import settings
from infra.worker.context import worker_context
from infra.worker.release_inputs import release_inputs
from packhouse.digest import digest_bytes
from packhouse.errors import NotFound, ReleaseInvalid
from packhouse.release.lookup import at_prefix
from packhouse.release.manifest import RECORD, Record, release_key
from packhouse.spec.model import MAX_SPEC_BYTES, PROGRAM, SPEC_FILE, parse
from packhouse.spec.sources import check_program, checked_source
from packhouse.spec.supported import check_supported
from packhouse.store import Retrying, open_store
from packhouse.trust.signatures import is_signed
from tasks._support.pipeline_task import one_line, pipeline_task
from tasks._support.states import Planned


@pipeline_task("plan")
def plan(source: str) -> Planned:
    """Costs two small reads, whatever the model's size; three where releases are signed.

    A record that is to be signed and is not may be anybody's: its release is made again, which gives the same bytes or
    shows that it is not what its inputs make.

    Raises SourceNotAllowed: this worker takes nothing from there. NotFound: no package.toml there. SpecInvalid,
    ArchitectureUnknown, ImageInvalid, and the store's errors.
    """
    source = checked_source(source, worker_context().settings.sources)
    try:
        data, _ = Retrying(open_store(source)).get(SPEC_FILE, limit=MAX_SPEC_BYTES)
    except NotFound as error:
        raise NotFound(
            f"PH-0582 no {SPEC_FILE} here", where=source, next="a training job writes it last: has it ended?"
        ) from error
    spec = parse(data, where=f"{source}/{SPEC_FILE}")
    check_supported(spec, where=f"{source}/{SPEC_FILE}")
    if spec.architecture.name == PROGRAM:
        check_program(source, worker_context().settings.trusted_programs)
    with one_line(spec.model.name, "plan") as line:
        inputs = release_inputs(spec, digest_bytes(data), runtime_image=worker_context().settings.runtime_image)
        check_asked(spec, settings())
        if spec.image:
            builders.allowed(spec.image.repository, spec.model.name, worker_context().settings)
        record = _record(release_key(spec.model.name, inputs.release_id))
        line.note(f"release {inputs.release_id}, {'unchanged' if record else 'to be made'}")
    return Planned(source=source, spec=spec, inputs=inputs, record=record)


def _record(prefix: str) -> Record | None:
    """Of the bytes that are looked at for a signature, and no later ones."""
    try:
        found = at_prefix(worker_context().store, prefix)
    except NotFound:
        return None
    record = found.record
    if release_key(record.model, record.release) != prefix:
        raise ReleaseInvalid("PH-0126 is of another release", where=f"{prefix}{RECORD}", got=found.name)
    return None if worker_context().settings.signs and not is_signed(found, worker_context().known) else record
