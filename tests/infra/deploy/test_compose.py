"""compose.yaml, without an engine: what may stand in it, who reaches what, that every command and setting exists."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import prefect.settings
import pytest
import yaml

from infra.deploy.apply import PLACES
from infra.settings import Settings

FOLDER = Path(__file__).resolve().parents[3] / "infra" / "deploy"
TEXT = (FOLDER / "compose.yaml").read_text()
COMPOSE = yaml.safe_load(TEXT)
SERVICES: dict[str, Any] = COMPOSE["services"]
ENDS = {"apply", "owners"}
OURS = {name for name, service in SERVICES.items() if "PACKHOUSE" in service["image"]}
LISTEN = {name for name, service in SERVICES.items() if "ports" in service}

SERVICE_KEYS = {
    "image",
    "user",
    "command",
    "environment",
    "volumes",
    "tmpfs",
    "ports",
    "networks",
    "network_mode",
    "depends_on",
    "healthcheck",
    "profiles",
    "deploy",
    "configs",
    "restart",
    "init",
    "read_only",
    "cap_drop",
    "cap_add",
    "security_opt",
    "logging",
    "pids_limit",
    "shm_size",
    "working_dir",
}
HEALTH_KEYS = {"test", "interval", "timeout", "retries", "start_period"}
SECRET = re.compile(r"PASSWORD|SECRET|_KEY$|AUTH$|HTPASSWD")


def example() -> dict[str, str]:
    lines = [line for line in (FOLDER / ".env.example").read_text().splitlines() if line and not line.startswith("#")]
    return {name: value.strip("'") for name, _, value in (line.partition("=") for line in lines)}


def test_every_key_is_one_that_compose_knows_and_everything_named_is_there():
    assert {key for key in COMPOSE if not key.startswith("x-")} == {
        "name",
        "services",
        "configs",
        "networks",
        "volumes",
    }
    for name, service in SERVICES.items():
        assert not service.keys() - SERVICE_KEYS, name
        assert not service.get("healthcheck", {}).keys() - HEALTH_KEYS, name
        assert set(service.get("networks", [])) <= COMPOSE["networks"].keys(), name
        assert {volume.partition(":")[0] for volume in service.get("volumes", [])} <= COMPOSE["volumes"].keys(), name
        assert {config["source"] for config in service.get("configs", [])} <= COMPOSE["configs"].keys(), name
        for other, wait in service.get("depends_on", {}).items():
            ends = wait["condition"] == "service_completed_successfully"
            assert (
                ends if other in ENDS else wait["condition"] == "service_healthy" and "healthcheck" in SERVICES[other]
            )


def test_no_secret_stands_in_the_file_or_in_the_example():
    asked = set(re.findall(r"\$\{([A-Z0-9_]+)", TEXT))
    assert asked == example().keys(), "the example names each variable of the file, and no other"
    for name in filter(SECRET.search, asked):
        assert example()[name] == "", name
        assert not re.search(rf"\$\{{{name}:?-", TEXT), f"{name} has a default"
    for name, service in SERVICES.items():
        for variable, value in service.get("environment", {}).items():
            if SECRET.search(variable) and not variable.startswith("REGISTRY_AUTH"):
                assert value.startswith("${"), f"{name}: {variable}"


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_has_no_privilege(name):
    service = SERVICES[name]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["read_only"] is True
    assert "docker.sock" not in str(service)
    if name == "owners":
        assert (service["network_mode"], service["cap_add"]) == ("none", ["CHOWN", "FOWNER"])
        return
    assert service["user"] in ("10001:10001", "postgres")
    assert "cap_add" not in service


def test_the_worker_that_pushes_images_finds_its_login_in_a_volume_that_it_can_not_write_to():
    worker, volume = SERVICES["worker-cpu"], COMPOSE["volumes"]["credentials"]
    assert f"credentials:{worker['environment']['DOCKER_CONFIG']}:ro" in worker["volumes"]
    assert volume["name"] == PLACES["credentials_volume"], "the Docker pools' containers read the same"
    others = [service for name, service in SERVICES.items() if name != "worker-cpu"]
    assert not [service for service in others if "credentials" in str(service.get("volumes"))]


def test_ports_are_on_loopback_and_the_database_is_out_of_reach():
    for name in LISTEN:
        assert all(port.startswith("127.0.0.1:") for port in SERVICES[name]["ports"]), name
    assert "ports" not in SERVICES["postgres"]
    assert COMPOSE["networks"]["database"] == {"internal": True}
    assert {name for name, service in SERVICES.items() if "database" in service.get("networks", [])} == {
        "postgres",
        "server",
    }
    assert SERVICES["postgres"]["networks"] == ["database"]


def test_everything_that_listens_asks_for_a_password():
    asks = {
        "server": "PREFECT_SERVER_API_AUTH_STRING",
        "s3": "ROOT_SECRET_KEY",
        "mlflow": "MLFLOW_AUTH_ADMIN_PASSWORD",
        "registry": "REGISTRY_AUTH",
        "webhook": "PACKHOUSE_WEBHOOK_SECRET",
    }
    assert asks.keys() == LISTEN
    assert all(asks[name] in SERVICES[name]["environment"] for name in LISTEN)
    assert "--app-name=basic-auth" in SERVICES["mlflow"]["command"]
    assert importlib.util.find_spec("flask_wtf"), "MLflow's basic-auth needs it"


def test_the_gpu_is_asked_for_by_one_worker_which_starts_only_where_it_is_wanted():
    (name,) = [name for name, service in SERVICES.items() if "deploy" in service]
    assert (name, SERVICES[name]["profiles"]) == ("worker-cuda", ["cuda"])
    (device,) = SERVICES[name]["deploy"]["resources"]["reservations"]["devices"]
    assert device["driver"] == "nvidia"
    assert "gpu" in device["capabilities"]


@pytest.mark.parametrize("name", sorted(OURS))
def test_every_setting_that_a_service_of_ours_is_given_exists(name):
    ours = {f"PACKHOUSE_{field.upper()}" for field in Settings.model_fields} | {"PACKHOUSE_WEBHOOK_SECRET"}
    for variable in SERVICES[name].get("environment", {}):
        if variable.startswith("PREFECT_"):
            assert hasattr(prefect.settings, variable), variable
        elif variable.startswith("PACKHOUSE_"):
            assert variable in ours


def test_the_examples_places_are_ones_that_a_worker_takes(monkeypatch):
    for variable in ("PACKHOUSE_STORE", "PACKHOUSE_SOURCES"):
        monkeypatch.setenv(variable, example()[variable])
    read = Settings()
    assert read.store.startswith("s3://packhouse/")
    assert read.sources == tuple(json.loads(example()["PACKHOUSE_SOURCES"]))


def _commands() -> dict[tuple[str, ...], set[str]]:
    """Each program of ours with its subcommands, and the options that it is started with."""
    found: dict[tuple[str, ...], set[str]] = {}
    for name in sorted(OURS - {"owners"}):
        words = SERVICES[name]["command"]
        first = next(at for at, word in enumerate(words) if word.startswith("--"))
        options = {word.partition("=")[0] for word in words if word.startswith("--")}
        found.setdefault(tuple(words[:first]), set()).update(options)
    return found


@pytest.mark.parametrize("program", _commands(), ids=" ".join)
def test_every_program_that_is_started_exists_and_takes_its_options(program):
    words = list(program)
    command = (
        [sys.executable, *words[1:]] if words[0] == "python" else [Path(sys.executable).parent / words[0], *words[1:]]
    )
    environment = os.environ | {"COLUMNS": "250", "NO_COLOR": "1", "TERM": "dumb"}
    done = subprocess.run(
        [*command, "--help"], cwd=FOLDER.parent.parent, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert not {option for option in _commands()[program] if not re.search(rf"{option}\b", done.stdout)}
