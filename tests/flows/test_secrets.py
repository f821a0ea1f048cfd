"""No secret of a worker gets anywhere: planted ones are searched for in all that a signed release with an image leaves
behind, in a registry with a password behind TLS."""

from __future__ import annotations

import base64
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from infra.registry.client import Client
from infra.registry.credentials import Credentials
from packhouse.release.lookup import find
from packhouse.store import open_store
from packhouse.trust.dsse import PublicKey
from packhouse.trust.signatures import Trusted
from packhouse.trust.verify import verify
from tests.flows.test_bad_input import packhouse
from tests.servers.fixtures import or_skip
from tests.servers.registry import TestRegistry, docker_config, registry
from tests.support.registry_images import push_base, small_layer
from tests.support.released import LATENCY_S

pytestmark = [pytest.mark.flow, pytest.mark.server, pytest.mark.usefixtures("api")]

NAMES = ("AWS_SECRET_ACCESS_KEY", "PACKHOUSE_WEBHOOK_SECRET", "PACKHOUSE_SIGNING_PASSWORD", "MLFLOW_TRACKING_PASSWORD")


@pytest.fixture
def password() -> str:
    return f"pw-{secrets.token_hex(12)}"


@pytest.fixture
def closed(tmp_path: Path, password: str) -> Iterator[TestRegistry]:
    yield from or_skip(lambda: registry(tmp_path / "registry", user=("robot", password), tls=True), "docker-registry")


def key(folder: Path, password: str) -> tuple[Path, bytes]:
    """A private key behind a password, and its secret number."""
    made = ec.generate_private_key(ec.SECP256R1())
    form = serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(password.encode())
    (folder / "signing.pem").write_bytes(made.private_bytes(serialization.Encoding.PEM, *form))
    public = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    (folder / "signing.pub.pem").write_bytes(made.public_key().public_bytes(*public))
    return folder / "signing.pem", made.private_numbers().private_value.to_bytes(32, "big")


def forms(secret: str) -> list[bytes]:
    """As it is, as Basic authentication and JSON carry it, and as a URL does."""
    plain = secret.encode()
    return [plain, base64.b64encode(plain), base64.b64encode(b"robot:" + plain), quote(secret, safe="").encode()]


def leaks(places: list[Path], wanted: dict[str, list[bytes]]) -> list[str]:
    found = []
    for place in places:
        for path in place.rglob("*"):
            if path.is_file() and not path.is_symlink():
                data = path.read_bytes()
                found += [f"{name} in {path}" for name, each in wanted.items() if any(form in data for form in each)]
    return found


def test_planted_secrets_are_nowhere_in_what_a_release_leaves_behind(tmp_path, staged, closed, password):
    """Store, cache, local Prefect folder, registry with all its layers and configs, the server's database with logs,
    states and artifacts, and all that the command said."""
    (tmp_path / "keys").mkdir()
    planted = {name: f"canary-{secrets.token_hex(16)}" for name in NAMES}
    signing, number = key(tmp_path / "keys", planted["PACKHOUSE_SIGNING_PASSWORD"])
    client = Client(closed.host, known=Credentials("robot", password), verify=str(closed.certificate))
    base = push_base(client, "s/runtime", small_layer(tmp_path, "bin/server", os.urandom(1000)))
    client.close()
    home, repository = tmp_path / "home", f"{closed.host}/s/linear"
    environment = planted | {
        "PACKHOUSE_RUNTIME_IMAGE": str(base),
        "PACKHOUSE_REGISTRY_CA": str(closed.certificate),
        "PACKHOUSE_SIGNING_KEY": str(signing),
        "DOCKER_CONFIG": str(docker_config(tmp_path / "docker", closed.host, "robot", password)),
        "PREFECT_LOGGING_LEVEL": "DEBUG",
        "PACKHOUSE_LATENCY_S": LATENCY_S,
    }
    done = packhouse(
        "release", "--verbose", staged("linear", image=repository, every_format=True), home=home, **environment
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = find(open_store(str(home / "store")), "linear@latest")
    assert verify(found, Trusted(keys=(PublicKey(tmp_path / "keys" / "signing.pub.pem"),))).signed_by
    assert found.record.image
    wanted = {name: forms(secret) for name, secret in planted.items()} | {"registry password": forms(password)}
    wanted |= {"signing key": [number, number.hex().encode(), base64.b64encode(number)]}
    said = tmp_path / "said"
    said.mkdir()
    (said / "out").write_text(done.stdout + done.stderr)
    prefect = Path(os.environ["PREFECT_HOME"])
    assert list(prefect.rglob("*.db"))
    assert leaks([home, said, closed.folder / "data", prefect], wanted) == []


def test_the_search_finds_what_is_there(tmp_path):
    for number, form in enumerate(forms("canary-of-this-test")):
        (tmp_path / f"{number}.bin").write_bytes(b"before" + form + b"after")
    assert len(leaks([tmp_path], {"it": forms("canary-of-this-test")})) == 4
    assert leaks([tmp_path], {"it": forms("canary-of-another-test")}) == []
