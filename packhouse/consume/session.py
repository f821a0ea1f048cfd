"""Sessions: a fetched release, ready to run in ONNX Runtime. Needs onnxruntime, and nothing else of the workers."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from packhouse.errors import NotFound, NotInstalled, ReleaseInvalid
from packhouse.formats.processors import has_vnni
from packhouse.formats.table import load, row
from packhouse.release.choice import PREFERRED, computes_as_judged, preferred
from packhouse.release.lookup import at_prefix, read_manifest
from packhouse.release.manifest import Manifest, Release, Selection
from packhouse.spec.model import Format
from packhouse.store import FileStore
from packhouse.trust.signatures import Trusted, check_release

if TYPE_CHECKING:
    import onnxruntime


@overload
def open_session(
    folder: str | Path,
    format: Literal[Format.ONNX, Format.ONNX_INT8, "onnx", "onnx-int8"] | None = None,
    *,
    trust: Iterable[str | Path] = (),
    threads: int = 0,
) -> onnxruntime.InferenceSession: ...


@overload
def open_session(folder: str | Path, format: str, *, trust: Iterable[str | Path] = (), threads: int = 0) -> Any: ...


def open_session(
    folder: str | Path, format: str | None = None, *, trust: Iterable[str | Path] = (), threads: int = 0
) -> Any:
    """Opens a format of a fetched release, after it has checked the bytes against manifest and record.

    Args:
        folder: A release's folder, as `fetch` leaves it.
        format: `onnx`, `onnx-int8`, or a format that an installed package adds. None: INT8 of ONNX if the folder
            holds it and this processor computes it as it was judged, else ONNX in fp32. None never selects a format
            that must be named.
        trust: Files of public keys, certificates or policies, of which one must have signed the release. Empty: no
            signature is required.
        threads: Threads that one run computes with. 0: ONNX Runtime decides.

    Returns:
        Of ONNX an `onnxruntime.InferenceSession`, of another format what its package opens. The inputs and outputs have
        the names, dtypes and shapes of the release's `package.toml`.

    Raises:
        NotFound: The folder holds no such format, or none that this processor computes as it was judged.
        ReleaseInvalid: The folder's record or manifest is not what a release has, or the file does not load.
        DigestMismatch: A file has other bytes than the manifest names.
        SignatureInvalid: No trusted signer signed the release.
        NotInstalled: The runtime is not installed.
        Unavailable: No package that is installed here adds the format.
    """
    place = Path(folder).expanduser().absolute()
    found = at_prefix(FileStore(place), "")
    manifest = read_manifest(found, found.record)
    if trusted := Trusted.asked(trust):
        check_release(found, manifest, trusted)
    made = _chosen(manifest, place, format)
    for name in made.files:
        for _ in found.read(manifest.artifact(name)):
            pass  # the reader itself fails at the end where they are other bytes
    return _session(made.name, place / made.file, threads)


def _chosen(manifest: Manifest, folder: Path, format: str | None) -> Release:
    if unknown := [made for made in manifest.formats if made.name == format and made.format is None]:
        raise unknown[0].not_run(str(folder))
    there = {made.name: made for made in manifest.formats if (folder / made.file).is_file()}
    vnni = has_vnni()
    fits = {name: made for name, made in there.items() if computes_as_judged(made, vnni=vnni)}
    if format:
        picked = fits.get(format)
        picked = picked if picked and row(picked.name).session else None
    else:
        fits = {name: made for name, made in fits.items() if made.selection is Selection.AUTO}
        picked = preferred(fits.values(), vnni=vnni)
    if picked:
        return picked
    have = ", ".join(sorted(fits)) or "none that this processor can run as it was judged"
    want = format or " or ".join(PREFERRED)
    raise NotFound("PH-0198 no such format here", where=str(folder), got=have, want=want)


def _session(format: str, path: Path, threads: int) -> Any:
    made = row(format)
    assert made.session, "only such a format is chosen"
    try:
        return load(made.session)(path, threads)
    except ImportError as error:
        raise NotInstalled(f"PH-0196 {made.package} is not installed", next=f"pip install {made.package}") from error
    except Exception as error:  # the runtime's own errors have no class of their own
        raise ReleaseInvalid(f"PH-0197 does not load: {error}", where=path.name) from error
