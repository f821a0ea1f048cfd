"""A model's image, by one of two builders behind one interface: what goes in, and what came of it.

`registry` appends a layer over the registry's HTTP API: no engine, and the same digest every time. `docker` builds and
pushes with an engine, for those whose registry can be reached by their engine only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Protocol

from infra.images.docker import build_and_push
from infra.registry import append as appending
from infra.registry import completeness
from infra.registry.auth import is_loopback
from infra.registry.client import Client
from infra.registry.layer import layer
from infra.registry.packages import installed
from infra.registry.reference import Reference, parse
from infra.sandbox.client import PACKHOUSE
from infra.settings import BuildBy, Settings
from packhouse.digest import digest_files
from packhouse.errors import ImageInvalid, SourceNotAllowed
from packhouse.release.sbom import Component

MODELS = "models"
"""The folder in the image: there KServe and Kubernetes' image volumes look for a model too."""
USER = "10001:10001"
COMMAND = ("python", "-m", "packhouse.serving")
SERVER_LABEL = "dev.packhouse.server"
WORKER = "_worker"
"""What a wheel of packhouse holds besides packhouse itself: no server imports it."""

Pushed = appending.Pushed


@dataclass(frozen=True)
class ModelImage:
    """files: name in /models -> the file here, hashed already. target: the repository. labels: of the image."""

    files: Mapping[str, Path]
    base: Reference
    target: Reference
    labels: Mapping[str, str]
    environment: Mapping[str, str]


class ImageBuilder(Protocol):
    def push(self, image: ModelImage) -> Pushed:
        """Under its digest and no tag. Raises RegistryUnavailable, RegistryRefusal, ImageInvalid."""

    def tag(self, image: Reference, name: str) -> bool:
        """Whether it did not point there before."""


class Appender:
    """Over HTTP, and nothing else."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def push(self, image: ModelImage, *, known: str = "") -> Pushed:
        """known: the digest that it must come to. Raises DigestMismatch: another one, and nothing was sent."""
        with self._client(image.target.host) as client, self._client(image.base.host) as origin:
            base = _base(image.base, self._settings)
            made = layer({f"{MODELS}/{name}": path for name, path in image.files.items()}, modified=base.epoch)
            elsewhere = image.base.host != image.target.host
            return appending.append(
                client,
                base,
                image.target,
                made,
                labels=image.labels,
                environment=image.environment,
                source=origin if elsewhere else None,
                known=known,
            )

    def tag(self, image: Reference, name: str) -> bool:
        with self._client(image.host) as client:
            return appending.tag(client, image, name)

    def _client(self, host: str) -> Client:
        return client_of(host, self._settings)

    def missing(self, image: Reference) -> tuple[str, ...]:
        """In words, what of the image its registry lost."""
        with self._client(image.host) as client:
            return completeness.missing(client, image, self._settings.platform)


class Builder:
    """With the engine of PACKHOUSE_ENGINE."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def push(self, image: ModelImage) -> Pushed:
        return build_and_push(
            self._settings.engine,
            {f"{MODELS}/{name}": path for name, path in image.files.items()},
            base=image.base,
            target=image.target,
            folder=MODELS,
            labels=image.labels,
            environment=image.environment,
        )

    def tag(self, image: Reference, name: str) -> bool:
        return Appender(self._settings).tag(image, name)


def builder(settings: Settings) -> ImageBuilder:
    return Builder(settings) if settings.image_builder is BuildBy.DOCKER else Appender(settings)


def runtime(text: str) -> Reference:
    """What model images are built on. Raises ImageInvalid: nothing is set, or it is not by digest, so that its bytes
    could change under us."""
    if not text:
        raise ImageInvalid(
            "PH-0395 the spec wants an image, and this worker has none to build on",
            where="PACKHOUSE_RUNTIME_IMAGE",
            next="set it to the runtime image, by digest: docs/images.md",
        )
    found = parse(text)
    if not found.digest:
        raise ImageInvalid(
            "PH-0378 is not by digest", where="PACKHOUSE_RUNTIME_IMAGE", got=str(found), want="...@sha256:DIGEST"
        )
    return found


def allowed(repository: str, model: str, settings: Settings) -> Reference:
    """The repository, where the operator lets images of this model go: a spec is foreign, and our credentials and the
    tags of other models are not its.

    Raises SourceNotAllowed: it lies under none of PACKHOUSE_REGISTRIES (a registry on this machine needs no entry), it
    does not end in the model's name, or it holds the runtime image.
    """
    found = parse(repository)
    if found.repository.rpartition("/")[2] != model or found.name == settings.runtime_image.partition("@")[0]:
        where = f"{repository} for {model}"
        raise SourceNotAllowed(
            "PH-0394 is not this model's own", where=where, want=f"a repository that ends in /{model}"
        )
    name = f"{found.name}/"
    if is_loopback(found.host) or any(name.startswith(f"{prefix.rstrip('/')}/") for prefix in settings.registries):
        return found
    raise SourceNotAllowed(
        "PH-0393 images may not go there",
        where=repository,
        want=", ".join(settings.registries) or "a registry that PACKHOUSE_REGISTRIES names",
    )


@lru_cache(maxsize=1)
def server_code() -> str:
    """The digest over what the server in an image is made of; the runtime image is labelled with it."""
    own = [path for path in PACKHOUSE.rglob("*.py") if not path.is_relative_to(PACKHOUSE / WORKER)]
    return digest_files({path.relative_to(PACKHOUSE.parent).as_posix(): path for path in own})


def check_server(image: Reference, settings: Settings) -> None:
    """Where no engine starts the image itself, this worker's own server stands for the one in it: they must be equal.

    Raises ImageInvalid: the runtime image holds another server, or would start something else, or as somebody else."""
    config = _base(image, settings).config.get("config") or {}
    found = (config.get("Labels") or {}).get(SERVER_LABEL, "none"), config.get("User"), config.get("Cmd")
    wanted = server_code(), USER, list(COMMAND)
    for what, got, want in zip(("server", "user", "command"), found, wanted, strict=True):
        if got != want:
            raise ImageInvalid(
                f"PH-0392 has another {what} than this worker, which proves images without an engine",
                where=str(image),
                got=str(got),
                want=str(want),
                next="make runtime-image, or set PACKHOUSE_ENGINE",
            )


@lru_cache(maxsize=8)
def packages(image: Reference, settings: Settings) -> tuple[Component, ...]:
    """What is installed in a runtime image, which is by digest: read once in a worker's process."""
    with client_of(image.host, settings) as client:
        return tuple(installed(client, _base(image, settings)))


def client_of(host: str, settings: Settings) -> Client:
    return Client(host, verify=settings.registry_ca, insecure=settings.insecure_registries)


@lru_cache(maxsize=8)
def _base(image: Reference, settings: Settings) -> appending.Base:
    """By digest, so that it never changes: asked for once in a worker's process."""
    with client_of(image.host, settings) as client:
        return appending.pull_base(client, image, settings.platform)
