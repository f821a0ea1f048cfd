"""One machine's set of servers: its folder, its ports, its secrets, and what each program is told of the others."""

from __future__ import annotations

import json
import os
import secrets
import socket
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from infra.worker.local_prefect import PATIENT
from packhouse.errors import Refused

ROOT = Path(__file__).resolve().parent.parent.parent
PORTS = {"postgres": 5433, "prefect": 4200, "mlflow": 5000, "s3": 9000, "registry": 5080, "webhook": 8085}
"""Where a server listens, on loopback, unless somebody else does."""
SECRETS = ("postgres", "prefect", "mlflow", "mlflow-sessions", "registry", "webhook")
USER = "packhouse"
BUCKET = "packhouse"
PASSED_ON = ("AWS_", "CUDA_", "LANG", "LC_", "LD_LIBRARY_PATH", "NVIDIA_", "PACKHOUSE_", "REQUESTS_CA_BUNDLE", "SSL_")
"""Of the operator's environment, beside PATH, HOME, TMPDIR and proxies. Prefect's and MLflow's own is not."""


@dataclass(frozen=True)
class Site:
    folder: Path
    ports: Mapping[str, int]
    secrets: Mapping[str, str]
    s3: bool

    @property
    def api(self) -> str:
        return f"{self.url('prefect')}/api"

    @property
    def login(self) -> str:
        return f"{USER}:{self.secrets['prefect']}"

    @property
    def sources(self) -> str:
        return self._place("sources")

    def url(self, server: str) -> str:
        return f"http://127.0.0.1:{self.ports[server]}"

    def client(self) -> dict[str, str]:
        """What a person or a training job needs: where the servers are, and how to log in."""
        found = {
            "DO_NOT_TRACK": "1",
            "PREFECT_API_URL": self.api,
            "PREFECT_API_AUTH_STRING": self.login,
            "MLFLOW_TRACKING_URI": self.url("mlflow"),
            "MLFLOW_TRACKING_USERNAME": USER,
            "MLFLOW_TRACKING_PASSWORD": self.secrets["mlflow"],
            "PACKHOUSE_STORE": os.environ.get("PACKHOUSE_STORE") or self._place("store"),
        }
        if self.s3:  # moto takes any
            found |= {"AWS_ACCESS_KEY_ID": USER, "AWS_SECRET_ACCESS_KEY": USER, "AWS_EC2_METADATA_DISABLED": "true"}
        return found

    def worker(self) -> dict[str, str]:
        """What flow runs are told, and whoever starts them."""
        return self.program() | self.client() | self._of_packhouse()

    def program(self) -> dict[str, str]:
        """What every program is told."""
        names = ("PATH", "HOME", "TMPDIR", "USER", "http_proxy", "https_proxy", "no_proxy")
        kept = {name: value for name, value in os.environ.items() if name in names or name.startswith(PASSED_ON)}
        prefect = self.folder / "prefect"
        prefect.mkdir(mode=0o700, parents=True, exist_ok=True)
        fixed = {"DO_NOT_TRACK": "1", "PREFECT_HOME": str(prefect), "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
        return kept | fixed | {"PREFECT_RESULTS_DEFAULT_SERIALIZER": "json", "NO_COLOR": "1"}

    def _of_packhouse(self) -> dict[str, str]:
        return {
            "PACKHOUSE_HOME": os.environ.get("PACKHOUSE_HOME") or str(self.folder / "home"),
            "PACKHOUSE_SOURCES": os.environ.get("PACKHOUSE_SOURCES") or json.dumps([self.sources]),
            "PACKHOUSE_WORKER": str(ROOT),
            "PACKHOUSE_MLFLOW_URI": self.url("mlflow"),
            "PREFECT_WORKER_QUERY_SECONDS": "1",
            "PREFECT_WORKER_HEARTBEAT_SECONDS": "5",
            **PATIENT,
        }

    def _place(self, name: str) -> str:
        return f"s3://{BUCKET}/{name}?endpoint={self.url('s3')}" if self.s3 else str(self.folder / name)


def settle(folder: Path, running: Collection[str], *, s3: bool) -> Site:
    """The site of this folder, made where there is none. running: servers of ours that listen already."""
    folder.mkdir(parents=True, exist_ok=True)
    secret = folder / "secrets.json"
    if not secret.exists():
        write(secret, json.dumps({name: secrets.token_urlsafe(24) for name in SECRETS}))
    before = _read(folder / "ports.json")
    ports = {name: _port(before.get(name, port), name in running) for name, port in PORTS.items()}
    (folder / "ports.json").write_text(json.dumps(ports))
    return Site(folder, ports, {name: str(value) for name, value in _read(secret).items()}, s3)


def write(path: Path, text: str) -> None:
    """For its owner only, from its first byte on."""
    half = path.with_name(f".{path.name}.half")
    half.unlink(missing_ok=True)
    with os.fdopen(os.open(half, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    half.replace(path)


def _read(path: Path) -> dict[str, int]:
    try:
        found: dict[str, int] = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise Refused("PH-0382 is no JSON", where=str(path), next="make down, and remove the folder") from error
    return found


def _port(wanted: int, ours: bool) -> int:
    """The port, or another one where somebody else has it."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", wanted))
        except OSError:
            if not ours:
                probe.bind(("127.0.0.1", 0))
        else:
            return wanted
        return wanted if ours else int(probe.getsockname()[1])
