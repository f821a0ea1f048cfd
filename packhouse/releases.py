"""Finding releases in a store: by channel, by id, or all of them. A release without a record does not exist."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from packhouse.artifact import Artifact
from packhouse.errors import NotFound
from packhouse.manifest import CHANNEL, MAX_DOCUMENT_BYTES, RECORD, Channel, Record, channel_key, load, release_key
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
    raise NotFound("names no release", where=reference[:80], want="model@channel or model/release")


def named_channel(reference: str) -> tuple[str, str] | None:
    """(model, channel) of `model@channel`; None where it names no channel."""
    parts = _CHANNEL.fullmatch(reference)
    return (parts[1], parts[2]) if parts else None


def at_prefix(store: Store, prefix: str) -> Found:
    """The release whose folder is `prefix`; empty for a store that is the folder itself."""
    try:
        data, _ = store.get(f"{prefix}{RECORD}", limit=MAX_DOCUMENT_BYTES)
    except NotFound as error:
        raise NotFound(
            "no release here",
            where=f"{store.url}/{prefix}".rstrip("/"),
            next="a release without a record.json does not exist",
        ) from error
    return Found(store, prefix, data)


def read_channel(store: Store, model: str, channel: str) -> Channel:
    key = channel_key(model, channel)
    try:
        data, _ = store.get(key, limit=MAX_DOCUMENT_BYTES)
    except NotFound as error:
        raise NotFound(
            "no such channel", where=f"{model}@{channel}", next=f"`packhouse ls {model}` shows them"
        ) from error
    return load(Channel, data, where=key)


@dataclass(frozen=True)
class Entry:
    """One release of a model, and the channels that point at it."""

    model: str
    release: str
    channels: tuple[str, ...]


def channels(store: Store, model: str = "") -> list[tuple[str, str]]:
    """(model, channel) of all there are, of one model or of every model, by name; also those of which only the
    signature is left."""
    if model and not _MODEL.fullmatch(model):
        return []
    keys = [stat.key for stat in store.list(f"{model}/" if model else "")]
    return sorted({*_channels(keys, ".json"), *_channels(keys, ".sig")})


def _channels(keys: Iterable[str], ending: str) -> Iterator[tuple[str, str]]:
    for parts in (key.split("/") for key in keys):
        if len(parts) == 3 and parts[1] == "channels" and parts[2].endswith(ending):
            yield parts[0], parts[2].removesuffix(ending)


def releases(store: Store, model: str = "") -> Iterator[Entry]:
    """All that exist, of one model or of every model, by name."""
    if model and not _MODEL.fullmatch(model):
        return
    keys = [stat.key for stat in store.list(f"{model}/" if model else "")]
    pointed: dict[tuple[str, str], list[str]] = {}
    for owner, name in _channels(keys, ".json"):
        channel = read_channel(store, owner, name)
        pointed.setdefault((owner, channel.release), []).append(f"{name}#{channel.serial}")
    for parts in (key.split("/") for key in keys):
        if len(parts) == 4 and parts[1] == "releases" and parts[3] == RECORD:
            yield Entry(parts[0], parts[2], tuple(pointed.get((parts[0], parts[2]), ())))
