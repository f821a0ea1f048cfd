"""The programs of one machine's set: how each is started, and how it shows that it is ready."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from datetime import UTC, datetime

from infra.deploy.postgres import Postgres
from infra.deploy.postgres import environment as postgres_environment
from infra.deploy.processes import Service
from infra.deploy.site import BUCKET, USER, Site, write
from infra.worker.local_prefect import IN_BATCHES
from packhouse.errors import Refused, Unavailable

PROMPT_S = 3.0
NEEDED_SLOTS = 3
"""nightly, watch and audit each take a place of the worker while they wait; releases need more than those."""


def postgres(site: Site) -> Service:
    server = Postgres(site.folder / "postgres", site.ports["postgres"], site.secrets["postgres"])
    server.prepare()
    at_once = signal.SIGINT  # its SIGTERM waits for clients
    return Service("postgres", server.command(), postgres_environment(), server.ready, server.port, stop=at_once)


def prefect(site: Site, database: str) -> Service:
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1"]
    environment = site.program() | {
        "PREFECT_SERVER_API_AUTH_STRING": site.login,
        "PREFECT_API_AUTH_STRING": site.login,
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": database,
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        **IN_BATCHES,
    }
    port = site.ports["prefect"]
    return Service("prefect", [*command, "--port", str(port)], environment, lambda: answers(f"{site.api}/health"), port)


def s3(site: Site) -> Service:
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(site.ports["s3"])]

    def ready() -> bool:
        return answers(site.url("s3")) and _bucket(site)

    return Service("s3", command, site.program(), ready, site.ports["s3"])


def mlflow(site: Site) -> Service:
    home = site.folder / "mlflow"
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    users = f"sqlite:///{home}/users.db"
    settings = {"default_permission": "EDIT", "database_uri": users, "admin_username": USER}
    settings |= {"authorization_function": "mlflow.server.auth:authenticate_request_basic_auth"}
    write(home / "auth.ini", "[mlflow]\n" + "".join(f"{name} = {value}\n" for name, value in settings.items()))
    environment = site.program() | {
        "MLFLOW_AUTH_CONFIG_PATH": str(home / "auth.ini"),
        "MLFLOW_AUTH_ADMIN_PASSWORD": site.secrets["mlflow"],
        "MLFLOW_FLASK_SERVER_SECRET_KEY": site.secrets["mlflow-sessions"],
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_WEBHOOK_ALLOWED_SCHEMES": "http,https",  # the receiver is plain HTTP on loopback
        "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "true",
        "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY": _key(site.secrets["mlflow-sessions"]),
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    command = [sys.executable, "-m", "mlflow", "server", "--app-name", "basic-auth", "--host", "127.0.0.1"]
    command += ["--port", str(site.ports["mlflow"]), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{home}/runs.db", "--artifacts-destination", str(home / "artifacts")]
    return Service(
        "mlflow", command, environment, lambda: answers(f"{site.url('mlflow')}/health"), site.ports["mlflow"]
    )


def registry(site: Site) -> Service:
    """Raises Refused: Debian's registry is not installed."""
    for program, package in (("docker-registry", "docker-registry"), ("htpasswd", "apache2-utils")):
        if not shutil.which(program):
            raise Refused(f"PH-0381 {program} is not installed", next=f"apt-get install {package}")
    home = site.folder / "registry"
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    password = site.secrets["registry"]
    if not (home / "users").exists():  # its salt is new each time
        line = subprocess.run(["htpasswd", "-inB", USER], input=password, capture_output=True, text=True, check=True)  # noqa: S607
        write(home / "users", line.stdout)
    document = {
        "version": "0.1",
        "log": {"level": "warn"},
        "storage": {"filesystem": {"rootdirectory": str(home / "blobs")}, "delete": {"enabled": True}},
        "http": {"addr": f"127.0.0.1:{site.ports['registry']}"},
        "auth": {"htpasswd": {"realm": "packhouse", "path": str(home / "users")}},
    }
    write(home / "config.json", json.dumps(document))  # which is YAML too
    command = [str(shutil.which("docker-registry")), "serve", str(home / "config.json")]
    ready_at, port = f"{site.url('registry')}/v2/", site.ports["registry"]
    return Service("registry", command, site.program(), lambda: answers(ready_at, f"{USER}:{password}"), port)


def webhook(site: Site) -> Service:
    command = [
        sys.executable,
        "-m",
        "infra.mlflow.webhook",
        "--host",
        "127.0.0.1",
        "--port",
        str(site.ports["webhook"]),
    ]
    environment = site.worker() | {"PACKHOUSE_WEBHOOK_SECRET": site.secrets["webhook"]}
    ready_at, port = f"{site.url('webhook')}/health", site.ports["webhook"]
    return Service("webhook", command, environment, lambda: answers(ready_at), port)


def worker(site: Site, pool: str, number: int = 1) -> Service:
    """One run at a time on a GPU; on CPUs as many as may wait for each other, and a few more."""
    name = f"{pool}-{number}"
    places = 1 if pool == "cuda" else NEEDED_SLOTS + max(2, (os.cpu_count() or 1) // 4)
    command = [sys.executable, "-m", "prefect", "worker", "start", "--type", "process", "--install-policy", "never"]
    asked = datetime.now(UTC)

    def ready() -> bool:
        return _heard(site, pool, name, since=asked)

    command += ["--pool", pool, "--name", name, "--limit", str(places)]
    return Service(f"worker-{name}", command, site.worker(), ready)


def answers(url: str, login: str = "", body: bytes | None = None) -> bool:
    """Whether it says 200."""
    try:
        return _ask(url, login, body) is not None
    except Unavailable:
        return False


def _ask(url: str, login: str = "", body: bytes | None = None) -> object:
    """Raises Unavailable: it does not answer, or not with 200."""
    headers = {"Content-Type": "application/json"}
    if login:
        headers["Authorization"] = f"Basic {base64.b64encode(login.encode()).decode()}"
    try:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # loopback only
        with opener.open(urllib.request.Request(url, data=body, headers=headers), timeout=PROMPT_S) as answer:  # noqa: S310
            data = answer.read()
            return json.loads(data) if data[:1] in (b"[", b"{") else data
    except (urllib.error.URLError, OSError, ValueError) as error:
        raise Unavailable("PH-0380 does not answer", where=url) from error


def _key(secret: str) -> str:
    """A key in the form that Fernet wants."""
    return base64.urlsafe_b64encode(hashlib.sha256(f"webhooks {secret}".encode()).digest()).decode()


def _heard(site: Site, pool: str, name: str, *, since: datetime) -> bool:
    """The server has heard of the worker since then, and so not only of one of its name that is gone."""
    try:
        found = _ask(f"{site.api}/work_pools/{pool}/workers/filter", site.login, b"{}")
    except Unavailable:
        return False
    workers = found if isinstance(found, list) else []
    beats = [each["last_heartbeat_time"] for each in workers if each["name"] == name]
    return any(beat and datetime.fromisoformat(beat) > since for beat in beats)


def _bucket(site: Site) -> bool:
    """Made where there is none: the server keeps nothing when it ends."""
    request = urllib.request.Request(f"{site.url('s3')}/{BUCKET}", method="PUT")  # noqa: S310
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=PROMPT_S):
            return True
    except urllib.error.HTTPError as error:
        return error.code == 409  # it is there
    except OSError:
        return False
