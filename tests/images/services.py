"""Services of compose.yaml as `docker run` starts them, so that what is checked is what the file says.

Compose itself needs no place here: Debian 12 has no package of its second version.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

COMPOSE = Path(__file__).resolve().parents[2] / "infra" / "deploy" / "compose.yaml"
VARIABLE = re.compile(r"\$\{(\w+)(?::?([-?])([^}]*))?\}")
REPLACED = frozenset({"image", "networks", "ports", "depends_on", "restart", "logging"})
"""What the check gives itself: images by name, one network without a way out, and the order of the services."""
POLL_S = "2s"
"""Between two health checks: no need to wait half a minute for the first one."""


def services() -> dict[str, Any]:
    return dict(yaml.safe_load(COMPOSE.read_text())["services"])


def filled(value: str, variables: Mapping[str, str]) -> str:
    """Raises KeyError: a variable without a default that is not given."""

    def one(found: re.Match[str]) -> str:
        name, sign, default = found.groups()
        if sign == "-":
            return variables.get(name) or default
        return variables[name]

    return VARIABLE.sub(one, value)


def docker_run(
    service: Mapping[str, Any],
    image: str,
    variables: Mapping[str, str],
    *,
    environment: Mapping[str, str | None] | None = None,
    options: Sequence[str] = (),
) -> list[str]:
    """The words after `docker run`.

    Args:
        service: A service of compose.yaml, of which every key is used or known to be replaced.
        image: The image in place of the service's own.
        variables: Of `.env`.
        environment: Variables of the container that replace the service's own; None takes one away.
        options: Further options of `docker run`, such as its network.

    Raises:
        ValueError: The service has a key that is not carried over.
    """
    environment = {**service.get("environment", {}), **(environment or {})}
    words = list(options)
    for name, value in environment.items():
        if value is not None:
            words += ["--env", f"{name}={filled(value, variables)}"]
    for key, value in service.items():
        if key not in {"environment", "command", *REPLACED}:
            words += _options(key, value)
    return [*words, image, *(filled(word, variables) for word in service["command"])]


def _options(key: str, value: Any) -> Iterable[str]:
    match key:
        case "init" | "read_only":
            return [f"--{key.replace('_', '-')}={str(value).lower()}"]
        case "user":
            return ["--user", value]
        case "pids_limit":
            return ["--pids-limit", str(value)]
        case "working_dir":
            return ["--workdir", value]
        case "cap_drop" | "security_opt" | "tmpfs" | "volumes":
            option = {"volumes": "--volume"}.get(key, f"--{key.replace('_', '-')}")
            return [word for each in value for word in (option, each)]
        case "healthcheck":
            assert value["test"][0] == "CMD"
            words = ["--health-cmd", shlex.join(value["test"][1:]), "--health-interval", POLL_S]
            words += ["--health-timeout", value["timeout"], "--health-retries", str(value["retries"])]
            return [*words, "--health-start-period", value["start_period"]]
        case _:
            raise ValueError(f"compose.yaml has {key}, which the check does not carry over")
