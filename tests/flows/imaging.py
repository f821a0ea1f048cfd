"""A worker that makes images: a real registry, and a small runtime image in it to build on."""

from __future__ import annotations

import os

import pytest

from infra.registry.client import Client
from infra.registry.credentials import Credentials
from infra.settings import settings
from infra.workshop import Workshop, use
from tests.registry.images import push_base, small_layer


@pytest.fixture
def registry(home, tmp_path, open_registry, monkeypatch, sandbox):
    """A worker that may push there, and has something to build on."""
    client = Client(open_registry.host, known=Credentials())
    made = small_layer(tmp_path, "bin/server", os.urandom(1000))
    base = push_base(client, f"f/{os.urandom(4).hex()}/runtime", made)
    monkeypatch.setenv("PACKHOUSE_RUNTIME_IMAGE", str(base))
    settings.cache_clear()
    use(Workshop(settings(), sandbox))
    yield client
    client.close()


@pytest.fixture
def repository(registry) -> str:
    return f"{registry.host}/f/{os.urandom(4).hex()}/linear"
