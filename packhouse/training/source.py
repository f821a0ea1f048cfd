"""A source: a folder of files and package.toml, checked and uploaded, package.toml last."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from packhouse.architectures import exported_program
from packhouse.digest import digest_bytes, digest_file
from packhouse.errors import SpecInvalid
from packhouse.parity.probes import check_samples, read_samples
from packhouse.parity.trained_outputs import cases
from packhouse.spec.errors import Finding
from packhouse.spec.model import PROGRAM, SPEC_FILE, Spec, checked, read, render
from packhouse.spec.supported import check_supported
from packhouse.spec.toml_location import key_of, line_of
from packhouse.store import Retrying, open_store
from packhouse.training.announce import announce

if TYPE_CHECKING:
    pass
from packhouse.training.model_files import WEIGHTS_FILE

SAMPLES_FILE = "samples.safetensors"


@dataclass(frozen=True)
class Staged:
    """A source that was written.

    Attributes:
        url: The source, as `packhouse release` takes it.
        spec: What `package.toml` says.
        notes: What could not be checked here, one sentence each.
    """

    url: str
    spec: Spec
    notes: tuple[str, ...] = ()


def stage_folder(
    folder: Path,
    document: Mapping[str, Any],
    *,
    to: str,
    text: str = "",
    notes: tuple[str, ...] = (),
    announce_to: str | None = None,
) -> Staged:
    """Stages files that exist already: uploads weights and samples, then `package.toml`.

    Args:
        folder: The folder with the files. A program in it keeps its example inputs; the uploaded copy has none.
        document: `package.toml` as a dictionary. Digests and sizes that `weights` and `samples` lack are filled in. It
            keeps its schema.
        to: A folder or an `s3://` prefix, a new one for each training run.
        text: `package.toml` as its author wrote it, for the lines in messages.
        notes: What could not be checked before, for the result.
        announce_to: As in `stage`.

    Returns:
        The source's URL, its spec, and what could not be checked here.

    Raises:
        SpecInvalid: The document does not say what a spec must say, or names a file that does not exist.
        SamplesInvalid: The samples do not fit the declared inputs.
        UnsafeWeights: The program carries pickles besides its example inputs.
        StoreUnavailable: The store did not answer, broke off or denied access.
    """
    with tempfile.TemporaryDirectory(prefix="packhouse-stage-") as work:
        program = _without_examples(folder, document, Path(work))
        spec = filled_spec(folder, document, program, told=lambda found: _in_file(found, text))
        check_supported(spec)
        samples = read_samples(folder / spec.samples.file)
        check_samples(spec, samples)
        cases(spec, samples)
        store = Retrying(open_store(to))
        store.put(spec.weights.file, program or folder / spec.weights.file, digest=spec.weights.digest)
        store.put(spec.samples.file, folder / spec.samples.file, digest=spec.samples.digest)
    written = render(spec)
    store.put(SPEC_FILE, written, digest=digest_bytes(written))
    said = announce(store.url, model=spec.model.name, digest=digest_bytes(written), api=announce_to)
    return Staged(store.url, spec, (*notes, said) if said else notes)


def _without_examples(folder: Path, document: Mapping[str, Any], work: Path) -> Path | None:
    """Of a program whose digest nobody has named yet, a copy without example inputs; else None."""
    architecture, weights = (document.get(section) for section in ("architecture", "weights"))
    if not isinstance(architecture, Mapping) or not isinstance(weights, Mapping) or "sha256" in weights:
        return None
    path = folder / Path(str(weights.get("file", ""))).name
    if architecture.get("name") != PROGRAM or not path.is_file():
        return None
    exported_program.without_examples(path, work / path.name)
    return work / path.name


def filled_spec(
    folder: Path, document: Mapping[str, Any], program: Path | None = None, *, told: Callable[[Finding], SpecInvalid]
) -> Spec:
    """The spec, with the digests and sizes of the folder's files.

    program: what is uploaded as weights. told: makes the error for the author of the document.
    """
    filled = dict(document)
    for section, default in (("weights", WEIGHTS_FILE), ("samples", SAMPLES_FILE)):
        given = document.get(section, {})
        if not isinstance(given, Mapping):
            raise SpecInvalid(f"PH-0276 [{section}] is not a table", where=SPEC_FILE, got=repr(given)[:80])
        entry = {"file": default, **given}
        path = program if program and section == "weights" else folder / Path(str(entry["file"])).name
        filled[section] = {**_named(path, section), **entry}
    found = checked(_as_read(filled))
    if isinstance(found, Finding):
        raise told(found)
    return found


def _as_read(document: dict[str, Any]) -> dict[str, Any]:
    """The document as it will be read again."""
    import tomli_w

    try:
        written = tomli_w.dumps(document).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise SpecInvalid(
            f"PH-0275 not to be written as TOML: {error}", where=SPEC_FILE, want="plain values"
        ) from error
    return read(written)


def _in_file(found: Finding, text: str) -> SpecInvalid:
    line = line_of(found.path, text)
    what = found.coded(f"{key_of(found.path)}: {found.what}".removeprefix(": "))
    where = f"{SPEC_FILE}:{line}" if line else SPEC_FILE
    return SpecInvalid(what, where=where, got=found.got, want=found.want, next=found.next)


def _named(path: Path, section: str) -> dict[str, Any]:
    if not path.is_file():
        raise SpecInvalid(f"PH-0274 [{section}] names a file that is not there", where=str(path))
    return {"sha256": digest_file(path).removeprefix("sha256:"), "size": path.stat().st_size}
