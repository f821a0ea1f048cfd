"""Who we are to a registry: Docker's own config file, as `docker login` or a Kubernetes secret leaves it."""

from __future__ import annotations

import base64
import json
import os
from dataclasses import dataclass, field
from pathlib import Path

from packhouse.errors import RegistryRefusal

CONFIG_VARIABLE = "DOCKER_CONFIG"
CONFIG_FILE = "config.json"


@dataclass(frozen=True)
class Credentials:
    """user, password: for basic authentication. identity_token: for a token server, in place of both."""

    user: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)

    @property
    def basic(self) -> str:
        """The value of an Authorization header; empty for nobody."""
        if not self.user:
            return ""
        return "Basic " + base64.b64encode(f"{self.user}:{self.password}".encode()).decode()


def config_path() -> Path:
    """$DOCKER_CONFIG/config.json, else ~/.docker/config.json."""
    folder = os.environ.get(CONFIG_VARIABLE)
    return (Path(folder) if folder else Path("~/.docker").expanduser()) / CONFIG_FILE


def credentials(host: str, path: Path | None = None) -> Credentials:
    """Those of the registry; nobody's where the file does not name it.

    Raises RegistryRefusal: the file is broken, or leaves this registry to a credential helper, which is a program of
    its own that a worker does not run.
    """
    path = path or config_path()
    try:
        document = json.loads(path.read_text())
        helpers = document.get("credHelpers", {})
        entry = document.get("auths", {}).get(host) or document.get("auths", {}).get(f"https://{host}") or {}
        found = _decoded(entry)
    except FileNotFoundError:
        return Credentials()
    except (OSError, ValueError, AttributeError) as error:
        raise RegistryRefusal("PH-0439 can not be read", where=str(path), got=type(error).__name__) from error
    if not found.basic and not found.identity_token and (host in helpers or document.get("credsStore")):
        raise RegistryRefusal(
            "PH-0438 leaves this registry to a credential helper",
            where=f"{path}: {host}",
            next="log in with a config file of its own: DOCKER_CONFIG=FOLDER docker login, without credsStore",
        )
    return found


def _decoded(entry: dict[str, str]) -> Credentials:
    user, password = entry.get("username", ""), entry.get("password", "")
    if entry.get("auth"):
        user, _, password = base64.b64decode(entry["auth"], validate=True).decode().partition(":")
    return Credentials(user=user, password=password, identity_token=entry.get("identitytoken", ""))
