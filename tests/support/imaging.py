"""A worker that makes images: a real registry, and a small runtime image in it to build on."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from infra.registry.client import Client
from infra.registry.credentials import Credentials
from infra.sandbox.client import Sandbox
from infra.settings import settings
from infra.worker.context import WorkerContext, use
from tests.servers.registry import TestRegistry
from tests.support.registry_images import blob_file, push_base, small_layer
from tests.support.released import Copy, ReleasedModels


def pushed_base(client: Client, folder: Path) -> str:
    """A runtime image of its own, by digest."""
    made = small_layer(folder, "bin/server", os.urandom(1000))
    return str(push_base(client, f"f/{os.urandom(4).hex()}/runtime", made))


@pytest.fixture
def registry(
    home: Path, tmp_path: Path, open_registry: TestRegistry, monkeypatch: pytest.MonkeyPatch, sandbox: Sandbox
) -> Iterator[Client]:
    """A worker that may push there, and has something to build on."""
    client = Client(open_registry.host, known=Credentials())
    monkeypatch.setenv("PACKHOUSE_RUNTIME_IMAGE", pushed_base(client, tmp_path))
    settings.cache_clear()
    use(WorkerContext(settings(), sandbox))
    yield client
    client.close()


@pytest.fixture
def repository(registry: Client) -> str:
    return f"{registry.host}/f/{os.urandom(4).hex()}/linear"


class ReleasesWithImages:
    """Each kind of release with an image, made once in a session. Each has a repository of its own.

    Args:
        models: Makes them.
        host: Of the registry.
        base: The runtime image that all of them are built on, by digest.
    """

    def __init__(self, models: ReleasedModels, host: str, base: str) -> None:
        self._models, self._host, self.base = models, host, base
        self._names: dict[str, str] = {}

    def original(self, **options: Any) -> Copy:
        """The release that these keywords of `ReleasedModels.original` describe. Nobody may change it, nor what the
        registry has of it, unless it is put back: `lose`."""
        name = self._names.setdefault(repr(sorted(options.items())), os.urandom(4).hex())
        image, worker = f"{self._host}/f/{name}/linear", {"runtime_image": self.base}
        return self._models.original(image=image, worker=worker, **options)


@pytest.fixture(scope="session")
def releases_with_images(
    open_registry: TestRegistry, released_models: ReleasedModels, tmp_path_factory: pytest.TempPathFactory
) -> ReleasesWithImages:
    with Client(open_registry.host, known=Credentials()) as client:
        base = pushed_base(client, tmp_path_factory.mktemp("base"))
    return ReleasesWithImages(released_models, open_registry.host, base)


@pytest.fixture
def pictured(
    registry: Client,
    releases_with_images: ReleasesWithImages,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    sandbox: Sandbox,
) -> Callable[..., Copy]:
    """Gives a function that copies a release with an image into this test's home, as `released` does; its keywords:
    `ReleasedModels.original`. This worker has the runtime image that it was built on."""

    def copy(**options: Any) -> Copy:
        made = releases_with_images.original(**options).copied(tmp_path)
        monkeypatch.setenv("PACKHOUSE_RUNTIME_IMAGE", releases_with_images.base)
        settings.cache_clear()
        use(WorkerContext(settings(), sandbox))
        return made

    return copy


@pytest.fixture
def lose(open_registry: TestRegistry) -> Iterator[Callable[[str], None]]:
    """Gives a function: the registry has lost the blob of this digest, until the test is over."""
    kept: dict[Path, bytes] = {}

    def lost(digest: str) -> None:
        path = blob_file(open_registry, digest)
        kept[path] = path.read_bytes()
        path.unlink()

    yield lost
    for path, data in kept.items():
        path.write_bytes(data)
