"""Finding releases in a store, by channel, by id, or all of them, and reading their manifest and spec.

A release without a record does not exist; one that was deleted has a tombstone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from packhouse.artifact import Artifact
from packhouse.digest import digest_bytes, short
from packhouse.errors import DigestMismatch, NotFound, ReleaseInvalid
from packhouse.release.manifest import (
    CHANNEL,
    GOLDEN,
    MANIFEST,
    MAX_DOCUMENT_BYTES,
    RECORD,
    Channel,
    Hold,
    Manifest,
    Record,
    Tombstone,
    channel_key,
    load,
    release_key,
)
from packhouse.release.store_layout import (
    CHANNELS,
    HOLDS,
    RELEASES,
    TOMBSTONES,
    Place,
    hold_key,
    place_of,
    tombstone_key,
)
from packhouse.spec.model import SPEC_FILE, Spec, parse
from packhouse.store import Store

_MODEL = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_RELEASE = re.compile(r"([a-z0-9][a-z0-9-]{0,62})/([A-Za-z0-9][A-Za-z0-9._-]{0,119})")
_CHANNEL = re.compile(rf"([a-z0-9][a-z0-9-]{{0,62}})@({CHANNEL})")


@dataclass(frozen=True)
class Found:
    """A release that exists: the store, the prefix of its folder, ending in `/` or empty, and its record's bytes."""

    store: Store
    prefix: str
    record_bytes: bytes

    @property
    def record(self) -> Record:
        return load(Record, self.record_bytes, where=RECORD)

    @property
    def name(self) -> str:
        """`model/id`."""
        return f"{self.record.model}/{self.record.release}"

    def document(self, name: str) -> bytes:
        """A small file whose digest the caller compares. Raises NotFound, LimitExceeded, and the store's errors."""
        return self.store.get(f"{self.prefix}{name}", limit=MAX_DOCUMENT_BYTES)[0]

    def read(self, artifact: Artifact) -> Iterator[bytes]:
        """Its bytes; raises DigestMismatch at the end unless they are the named ones. NotFound, at the call."""
        return self.store.read(f"{self.prefix}{artifact.name}", digest=artifact.digest, size=artifact.size)

    def save(self, artifact: Artifact, path: Path) -> None:
        """Raises as `read`; the file may then be there in part."""
        with path.open("wb") as file:
            for chunk in self.read(artifact):
                file.write(chunk)


def find(store: Store, reference: str) -> Found:
    """`model@channel`, or `model/id`. Raises NotFound: no such channel, or no record."""
    if channel := named_channel(reference):
        return at_prefix(store, release_key(channel[0], read_channel(store, *channel).release))
    if parts := _RELEASE.fullmatch(reference):
        return at_prefix(store, release_key(parts[1], parts[2]))
    raise NotFound("PH-0191 names no release", where=reference[:80], want="model@channel or model/release")


def named_channel(reference: str) -> tuple[str, str] | None:
    """(model, channel) of `model@channel`; None where it names no channel."""
    parts = _CHANNEL.fullmatch(reference)
    return (parts[1], parts[2]) if parts else None


def at_prefix(store: Store, prefix: str) -> Found:
    """The release whose folder is `prefix`; empty for a store that is the folder itself."""
    try:
        data, _ = store.get(f"{prefix}{RECORD}", limit=MAX_DOCUMENT_BYTES)
    except NotFound as error:
        place = place_of(f"{prefix}{RECORD}")
        if place and place.area is RELEASES and (stone := tombstone(store, place.model, place.id)):
            by = f" by {stone.by}" if stone.by else ""
            what = f"PH-0190 was deleted {stone.deleted_at}{by}: {stone.reason}"
            raise NotFound(what, where=f"{place.model}/{place.id}") from error
        raise NotFound(
            "PH-0189 no release here",
            where=f"{store.url}/{prefix}".rstrip("/"),
            next="a release without a record.json does not exist",
        ) from error
    return Found(store, prefix, data)


def manifest_bytes(found: Found, record: Record) -> bytes:
    """The very bytes that the record names. Raises DigestMismatch."""
    data = found.document(MANIFEST)
    if digest_bytes(data) != record.manifest or len(data) != record.manifest_size:
        raise DigestMismatch(
            "PH-0348 is not what the record names",
            where=MANIFEST,
            got=short(digest_bytes(data)),
            want=short(record.manifest),
        )
    return data


def read_manifest(found: Found, record: Record) -> Manifest:
    """The manifest that the record names. Raises DigestMismatch, ReleaseInvalid."""
    return parsed_manifest(manifest_bytes(found, record), found, record)


def read_spec(found: Found) -> Spec:
    """The spec that the release was made from, by its digest. Raises as `read_manifest`; SpecInvalid."""
    return parse(b"".join(found.read(read_manifest(found, found.record).artifact(SPEC_FILE))))


def parsed_manifest(data: bytes, found: Found, record: Record) -> Manifest:
    """Of bytes that the record names. Raises ReleaseInvalid."""
    manifest = load(Manifest, data, where=MANIFEST)
    if (manifest.model, manifest.release) != (record.model, record.release):
        raise ReleaseInvalid(
            "PH-0346 is of another release than the record", where=MANIFEST, got=manifest.model, want=record.model
        )
    _check_place(found, record)
    if manifest.artifact(SPEC_FILE).digest != manifest.inputs.spec:
        raise ReleaseInvalid("PH-0347 is not the spec that the release was made from", where=SPEC_FILE)
    manifest.artifact(GOLDEN)
    return manifest


def _check_place(found: Found, record: Record) -> None:
    """A release that was copied under another model's name or id is not that model's."""
    if found.prefix and found.prefix != release_key(record.model, record.release):
        raise ReleaseInvalid(
            "PH-0345 stands in another release's place", where=found.prefix, got=f"{record.model}/{record.release}"
        )


def read_channel(store: Store, model: str, channel: str) -> Channel:
    key = channel_key(model, channel)
    try:
        data, _ = store.get(key, limit=MAX_DOCUMENT_BYTES)
    except NotFound as error:
        raise NotFound(
            "PH-0114 no such channel", where=f"{model}@{channel}", next=f"`packhouse ls {model}` shows them"
        ) from error
    return load(Channel, data, where=key)


def tombstone(store: Store, model: str, release: str) -> Tombstone | None:
    """Why the release was deleted; None where it was not. Raises ReleaseInvalid: it is no tombstone of this release."""
    return _said(Tombstone, store, tombstone_key(model, release), model, release)


def hold(store: Store, model: str, release: str) -> Hold | None:
    """Why the release is kept; None where nobody holds it. Raises ReleaseInvalid: it is no hold of this release."""
    return _said(Hold, store, hold_key(model, release), model, release)


Said = TypeVar("Said", Hold, Tombstone)


def _said(kind: type[Said], store: Store, key: str, model: str, release: str) -> Said | None:
    """A document about this release; None where there is none. Raises ReleaseInvalid: it is none, or of another."""
    try:
        data, _ = store.get(key, limit=MAX_DOCUMENT_BYTES)
    except NotFound:
        return None
    said = load(kind, data, where=key)
    if (said.model, said.release) != (model, release):
        raise ReleaseInvalid("PH-0188 is about another release", where=key, got=f"{said.model}/{said.release}")
    return said


@dataclass(frozen=True)
class Entry:
    """One release of a model, and the channels that point at it. held: an operator keeps it from being deleted.
    deleted: it is gone, and its tombstone stands."""

    model: str
    release: str
    channels: tuple[str, ...]
    held: bool = False
    deleted: bool = False

    @property
    def words(self) -> str:
        """The entry for people."""
        marks = (*self.channels, *(["held"] if self.held else []), *(["deleted"] if self.deleted else []))
        return " ".join((f"{self.model}/{self.release}", *marks))


@dataclass(frozen=True)
class Listing:
    """What is in a store, or of a model. strange: keys that fit no row of the layout, which are nobody's."""

    releases: tuple[Entry, ...]
    deleted: tuple[Entry, ...]
    strange: tuple[str, ...]


def channels(store: Store, model: str = "") -> list[tuple[str, str]]:
    """(model, channel) of all there are, of one model or of every model, by name; also those of which only the
    signature is left."""
    places = (place for place, _ in _places(store, model) if place and place.area is CHANNELS)
    return sorted({(place.model, place.name) for place in places})


def releases(store: Store, model: str = "") -> Iterator[Entry]:
    """All that exist, of one model or of every model, by name."""
    yield from listing(store, model).releases


def listing(store: Store, model: str = "") -> Listing:
    """Of one model or of every model, by name. Holds and tombstones are told by their keys and are not read, so that a
    damaged one holds too."""
    places = _places(store, model)
    known = [(place, key) for place, key in places if place]
    pointed: dict[tuple[str, str], list[str]] = {}
    for place, key in known:
        if key == channel_key(place.model, place.name):
            channel = read_channel(store, place.model, place.name)
            pointed.setdefault((place.model, channel.release), []).append(f"{place.name}#{channel.serial}")
    held = {(place.model, place.id) for place, _ in known if place.area is HOLDS}
    there = [(place.model, place.id) for place, _ in known if place.area is RELEASES and place.rest == RECORD]
    buried = [(place.model, place.id) for place, _ in known if place.area is TOMBSTONES]
    return Listing(
        releases=tuple(Entry(*each, tuple(pointed.get(each, ())), held=each in held) for each in there),
        deleted=tuple(Entry(*each, tuple(pointed.get(each, ())), deleted=True) for each in buried if each not in there),
        strange=tuple(key for place, key in places if place is None),
    )


def _places(store: Store, model: str) -> list[tuple[Place | None, str]]:
    """Every key with its row in the layout."""
    if model and not _MODEL.fullmatch(model):
        return []
    return [(place_of(stat.key), stat.key) for stat in store.list(f"{model}/" if model else "")]
