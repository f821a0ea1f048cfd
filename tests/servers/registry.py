"""Debian's docker-registry on loopback, on a folder that outlives it; with a password or a certificate on request."""

from __future__ import annotations

import base64
import datetime
import ipaddress
import json
import shutil
import ssl
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.servers.place import CannotRunError, Server, free_ports, running, wait_until

PROGRAM = "docker-registry"
START_S = 60


@dataclass(frozen=True)
class TestRegistry:
    """host: with its port. certificate: of its own authority, where it speaks TLS."""

    __test__ = False

    host: str
    folder: Path
    server: Server
    certificate: Path | None = None

    @property
    def url(self) -> str:
        return f"{'https' if self.certificate else 'http'}://{self.host}"


def require() -> None:
    """Raises CannotRunError: it is not installed."""
    if shutil.which(PROGRAM) is None:
        raise CannotRunError("docker-registry is not installed: apt-get install docker-registry")


@contextmanager
def registry(
    folder: Path,
    *,
    user: tuple[str, str] | None = None,
    tls: bool = False,
    token: dict[str, str] | None = None,
    port: int = 0,
) -> Iterator[TestRegistry]:
    """user: name and password. token: the configuration of `auth.token`."""
    require()
    folder.mkdir(parents=True, exist_ok=True)
    host = f"127.0.0.1:{port or free_ports(1)[0]}"
    http: dict[str, object] = {"addr": host, "secret": "loopback"}
    config: dict[str, object] = {
        "version": 0.1,
        "log": {"level": "warn", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(folder / "data")}, "delete": {"enabled": True}},
        "http": http,
    }
    certificate = None
    if user:
        config["auth"] = {"htpasswd": {"realm": "test", "path": str(_htpasswd(folder, *user))}}
    if token:
        config["auth"] = {"token": token}
    if tls:
        certificate, key = own_certificate(folder)
        http["tls"] = {"certificate": str(certificate), "key": str(key)}
    path = folder / "config.yml"
    path.write_text(yaml.safe_dump(config))
    with running([PROGRAM, "serve", path], log=folder / "registry.log") as server:
        found = TestRegistry(host, folder, server, certificate)
        wait_until(lambda: _speaks(found), what=PROGRAM, server=server, timeout_s=START_S)
        yield found


def _speaks(found: TestRegistry) -> bool:
    context = ssl.create_default_context(cafile=str(found.certificate)) if found.certificate else None
    try:
        urllib.request.urlopen(f"{found.url}/v2/", timeout=2, context=context).close()
    except urllib.error.HTTPError as error:
        return error.code == 401
    except OSError:
        return False
    return True


def _htpasswd(folder: Path, user: str, password: str) -> Path:
    path = folder / "htpasswd"
    made = subprocess.run(["htpasswd", "-Bbn", user, password], capture_output=True, check=False)
    if made.returncode:
        raise CannotRunError("htpasswd failed: apt-get install apache2-utils")
    path.write_bytes(made.stdout)
    return path


def own_certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that vouches for itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "loopback")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    certificate, private = folder / "certificate.pem", folder / "key.pem"
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return certificate, private


def docker_config(folder: Path, host: str, user: str, password: str) -> Path:
    """A folder for DOCKER_CONFIG, as `docker login` leaves it."""
    folder.mkdir(parents=True, exist_ok=True)
    auth = base64.b64encode(f"{user}:{password}".encode()).decode()
    (folder / "config.json").write_text(json.dumps({"auths": {host: {"auth": auth}}}))
    return folder
