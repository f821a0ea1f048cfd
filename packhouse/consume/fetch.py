"""Fetch: the consumer's side. A release becomes a folder, checked byte by byte, whole or not there.

Needs neither an orchestrator nor a runtime; boto3 only for `s3://`, cryptography only for signatures.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from packhouse import atomic_write
from packhouse.artifact import Artifact
from packhouse.errors import NotFound, Refused, StoreRefusal, StoreUnavailable
from packhouse.release.contents import is_whole, known_names, needed
from packhouse.release.lookup import Found, find, manifest_bytes, named_channel, parsed_manifest, read_channel
from packhouse.release.manifest import MANIFEST, PROVENANCE, RECORD, SIGNATURE, Manifest
from packhouse.spec.model import Format
from packhouse.store import Retrying, Store, open_store
from packhouse.store.retrying import Patience
from packhouse.trust.rollback_floors import Floors
from packhouse.trust.signatures import Trusted, check_release, said_of
from packhouse.trust.signed_channels import pointed

AT_A_TIME = 4


@dataclass(frozen=True)
class Fetched:
    """A release that `fetch` put into a folder.

    Attributes:
        folder: The release's folder, an absolute path.
        release: The release, as `model/id`.
        serial: The channel's serial. 0: `fetch` was given a release, and no channel.
        signed_by: Who signed the release. Empty: `trust` was empty.
        got: How many files were downloaded.
        kept: How many files were in the folder already, with the right bytes.
        late: Why the operator should look after the channel's signature, which is due for renewal. Empty: it is not.
    """

    folder: Path
    release: str
    serial: int
    signed_by: str
    got: int
    kept: int
    late: str = ""


def fetch(
    reference: str,
    destination: str | Path,
    *,
    store: str,
    trust: Iterable[str | Path] = (),
    floor: int = 0,
    floors: str | Path | None = None,
    formats: Sequence[Format | str] = (),
) -> Fetched:
    """Downloads a release into a folder, and checks every byte.

    The folder gets its name when all files are on disk. A second call continues a download that broke off. It downloads
    again only what is missing or damaged.

    Args:
        reference: `model@channel`, or a release, `model/id`.
        destination: The folder that the release becomes.
        store: The store: a folder, `file:///path` or `s3://bucket/prefix`.
        trust: Files of public keys, certificates or policies. One of them must have signed the release and the channel.
            `fetch` then follows the signed channel. Empty: no signature is required.
        floor: The least serial that the channel may have.
        floors: The folder that remembers the highest serial seen of each channel; a lower one is refused as a rollback
            attack. None: `$PACKHOUSE_HOME/floors`.
        formats: The formats to download, with what a server needs. Empty: the whole release.

    Returns:
        What was fetched, and from which release.

    Raises:
        NotFound: The store has no such channel, release or format.
        SignatureInvalid: No trusted signer signed it, or the channel's signature has expired.
        DigestMismatch: A file has other bytes than the manifest names.
        ReleaseInvalid: The release's record or manifest is not what a release has.
        Refused: The channel's serial is below the floor, or the destination holds something else.
        StoreUnavailable: The store did not answer, broke off or denied access.
    """
    place, destination = Retrying(open_store(store)), Path(destination).expanduser().absolute()
    trusted, folder = Trusted.asked(trust), Path(floors) if floors else home() / "floors"
    memory = Floors(folder / "signed" if trusted else folder)  # an unsigned channel's serials may be anybody's
    found, serial, late = _resolved(place, reference, trusted, floor, memory)
    record, said = found.record, said_of(found)
    listed = manifest_bytes(found, record)
    manifest = parsed_manifest(listed, found, record)
    signed_by = check_release(found, manifest, trusted, said) if trusted else ""
    wanted = _wanted(manifest, formats)
    documents = {**said, MANIFEST: listed, RECORD: found.record_bytes}
    with _held(destination, found) as folder:
        _sweep(folder, known_names(manifest), whole=folder != destination)
        got = _download(found, wanted, folder)
        for name in {PROVENANCE, SIGNATURE} - said.keys():
            (folder / name).unlink(missing_ok=True)
        for name, data in documents.items():
            atomic_write.write(folder / name, [data])
        _sync(folder)
        if folder != destination:
            _name(folder, destination, found)
    if serial:
        memory.remember(place.url, reference, serial)
    return Fetched(destination, found.name, serial, signed_by, got, len(wanted) - got, late)


def _name(folder: Path, destination: Path, found: Found) -> None:
    """The folder gets its name. Raises Refused: something else has it meanwhile."""
    try:
        folder.rename(destination)
    except OSError as error:
        _is_it(destination, found)
        raise Refused("PH-0145 can not be put here", where=str(destination), got=error.strerror or "") from error
    _sync(destination.parent)


def _resolved(
    store: Store, reference: str, trusted: Trusted | None, floor: int, memory: Floors
) -> tuple[Found, int, str]:
    """The release, the channel's serial, and whether its signature is late."""
    if not (channel := named_channel(reference)):
        if "@" in reference or floor:
            what = "names no channel" + (", which a floor is of" if floor else "")
            raise NotFound(what, where=reference[:80], want="model@channel")
        return find(store, reference), 0, ""
    if trusted:
        signed = pointed(store, *channel, trusted)
        found, serial, late = signed.found, signed.pointer.serial, signed.pointer.late(datetime.now(UTC))
    else:
        here = read_channel(store, *channel)
        found, serial, late = find(store, f"{channel[0]}/{here.release}"), here.serial, ""
    least = max(floor, memory.least(store.url, reference))
    if serial < least:
        raise Refused(
            "PH-0144 an older serial than was seen before: somebody shows an old channel",
            where=reference,
            got=f"#{serial}",
            want=f"#{least} or later",
            next=f"if the store was restored on purpose, remove {memory.path(store.url, reference)}",
        )
    return found, serial, late


def _wanted(manifest: Manifest, formats: Sequence[Format | str]) -> list[Artifact]:
    if not formats:
        return list(manifest.artifacts)
    made = {each.name: each for each in manifest.formats}
    if missing := [each for each in formats if each not in made]:
        raise NotFound(
            "PH-0143 the release has no such format", where=str(missing[0])[:80], got=", ".join(sorted(made))
        )
    return needed(manifest, [made[each] for each in formats])


def _is_it(destination: Path, found: Found) -> bool:
    """Whether this very release stands there. Raises Refused: something else does."""
    if not destination.exists():
        return False
    record = destination / RECORD
    if record.is_file() and record.read_bytes() == found.record_bytes:
        return True
    raise Refused("PH-0142 something else stands here", where=str(destination), next="choose another folder")


@contextlib.contextmanager
def _held(destination: Path, found: Found) -> Iterator[Path]:
    """The folder to work in, locked: the destination if it holds this release, else a folder beside it.

    A fetch that broke off continues there. Raises Refused: the destination holds something else.
    """
    beside = destination.with_name(f".{destination.name}.{found.record.release[:12]}.partial")
    while True:
        folder = destination if _is_it(destination, found) else beside
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if not _is(folder, descriptor) or (folder == beside and destination.exists()):
                continue  # another fetch has given it its name meanwhile
            yield folder
            return
        finally:
            os.close(descriptor)  # which also lets go of the lock


def _is(folder: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(folder.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _sweep(folder: Path, known: frozenset[str], *, whole: bool) -> None:
    """What fetches that were killed left behind: in a folder of ours all that is no part of the release."""
    for path in folder.iterdir():
        if (whole and path.name not in known) or atomic_write.TEMPORARY.fullmatch(path.name):
            path.unlink()


def _download(found: Found, wanted: Sequence[Artifact], folder: Path) -> int:
    """How many came over the wire. A file that is there with its right bytes stays."""
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        return sum(pool.map(lambda artifact: _one(found, artifact, folder), wanted))


def _one(found: Found, artifact: Artifact, folder: Path) -> bool:
    target = folder / artifact.name
    if is_whole(target, artifact):
        return False
    # The store's own patience ends with the first byte; here also what breaks off in the middle is begun again.
    Patience().again(
        lambda: atomic_write.write(target, found.read(artifact)), after=StoreUnavailable, never=StoreRefusal
    )
    return True


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def home() -> Path:
    """The folder that packhouse keeps on this machine for its user.

    Returns:
        `PACKHOUSE_HOME`, or `~/.packhouse`, as an absolute path.
    """
    return Path(os.environ.get("PACKHOUSE_HOME") or "~/.packhouse").expanduser().resolve()
