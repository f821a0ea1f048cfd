"""Real registries: one that is open, one with a password behind TLS; and a proxy that is rude."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from infra.registry.client import Client
from infra.registry.credentials import Credentials
from packhouse.store.retrying import Patience
from tests.servers.fixtures import or_skip
from tests.servers.registry import TestRegistry, registry
from tests.support.rude_registry import Proxy, rude

USER = ("trainer", "a-pass:word")


def quick() -> Patience:
    """Tries as often, and does not wait."""
    return Patience(sleep=lambda _: None)


@pytest.fixture(scope="session")
def open_registry(tmp_path_factory) -> Iterator[TestRegistry]:
    yield from or_skip(lambda: registry(tmp_path_factory.mktemp("open")), "docker-registry")


@pytest.fixture(scope="session")
def closed_registry(tmp_path_factory) -> Iterator[TestRegistry]:
    yield from or_skip(lambda: registry(tmp_path_factory.mktemp("closed"), user=USER, tls=True), "docker-registry")


@pytest.fixture
def client(open_registry) -> Iterator[Client]:
    made = Client(open_registry.host, known=Credentials(), patience=quick())
    yield made
    made.close()


@pytest.fixture
def proxy(open_registry) -> Iterator[Proxy]:
    with rude(open_registry.host) as found:
        yield found


@pytest.fixture
def by_proxy(proxy) -> Iterator[Client]:
    made = Client(proxy.host, known=Credentials(), patience=quick())
    yield made
    made.close()
