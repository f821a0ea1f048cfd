"""One suite, every store."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from packhouse.store import Adapter, Capabilities, Store, guard, probe
from tests.servers.fixtures import ceph_server, swift_server
from tests.support.store_places import FilesPlace, Place, S3Place

__all__ = ["ceph_server", "swift_server"]

DIGEST_OF_LARGE = "sha256:8479e43911dc45e89f934fe48d01297e16f51d17aa561d4d1c216b1ae0fcddca"
PUT_LARGE = """
import sys
from pathlib import Path
from packhouse.store import open_store
store = open_store(sys.argv[1])
print("begun", flush=True)
store.put("large", Path(sys.argv[2]), digest=sys.argv[3])
"""
INSTALLING_S = 1800
"""Where Ceph is not in the cache yet, debootstrap and apt bring it, each with a limit of 600 s."""
S3_SERVERS = [
    pytest.param("moto", marks=pytest.mark.server),
    pytest.param("swift", marks=[pytest.mark.server, pytest.mark.timeout(INSTALLING_S)]),
    pytest.param("ceph", marks=[pytest.mark.server, pytest.mark.timeout(INSTALLING_S)]),
]


@pytest.fixture(scope="session", params=["files", *S3_SERVERS])
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Place:
    if request.param == "files":
        return FilesPlace(tmp_path_factory.mktemp("files"))
    return request.getfixturevalue(f"{request.param}_place")


@pytest.fixture(scope="session", params=S3_SERVERS)
def s3_place(request: pytest.FixtureRequest) -> S3Place:
    return request.getfixturevalue(f"{request.param}_place")


@pytest.fixture(scope="session")
def moto_place(moto_server) -> S3Place:
    return _with_bucket("moto", moto_server)


@pytest.fixture(scope="session")
def swift_place(swift_server) -> S3Place:
    return _with_bucket("swift", swift_server)


@pytest.fixture(scope="session")
def ceph_place(ceph_server) -> S3Place:
    return _with_bucket("ceph", ceph_server)


def _with_bucket(name: str, endpoint) -> S3Place:
    place = S3Place(name, endpoint)
    place.make_bucket()
    return place


@pytest.fixture(scope="session")
def found(place: Place) -> Capabilities:
    return probe(place.fresh())


@pytest.fixture
def adapter(place: Place) -> Adapter:
    return place.fresh()


@pytest.fixture
def store(adapter: Adapter, found: Capabilities) -> Store:
    """As packhouse uses it: with the probe's findings built in."""
    return guard(adapter, found)


@pytest.fixture
def killed_writer(tmp_path: Path) -> Callable[[str, dict[str, str]], None]:
    """Puts 4 GiB under the key "large" of the store at a URL, and is killed while it does."""
    large = tmp_path / "large"
    with large.open("wb") as file:
        file.truncate(4 * 1024**3)  # zeros that take no room

    def write_and_die(url: str, environment: dict[str, str]) -> None:
        command = [sys.executable, "-c", PUT_LARGE, url, str(large), DIGEST_OF_LARGE]
        with subprocess.Popen(command, env=os.environ | environment, stdout=subprocess.PIPE) as writer:
            assert writer.stdout.readline() == b"begun\n"
            time.sleep(0.7)
            assert writer.poll() is None, "it was over before it was killed"
            writer.kill()
        time.sleep(0.3)  # for a server to notice

    return write_and_die
