"""Puts packhouse onto a Prefect server: pools, deployments, automations. `make deploy`.

`packhouse deploy [--kind process|docker|kubernetes] [--image IMAGE] ...`, with PREFECT_API_URL and, where
the server asks for it, PREFECT_API_AUTH_STRING. Run again, it changes nothing and doubles nothing. At the end
everything is read back and compared with what was meant.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from shlex import quote
from typing import Any

import httpx
import yaml
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.client.schemas.objects import WorkPool
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.schedules import CronSchedule
from prefect.events.schemas.automations import AutomationCore
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError

from packhouse import exit_status
from packhouse.errors import PackhouseError, Refused, SpecInvalid, Unavailable, squeezed

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
PREFECT_YAML = ROOT / "prefect.yaml"
POOLS = ("cpu", "cuda")
SIGNERS = "sign"
"""A pool of processes, whatever the others are: its worker stands where the key is, and by itself."""
KINDS = ("process", "docker", "kubernetes")
STARTED = "PACKHOUSE_WORKER={folder} prefect worker start --type process --pool cpu --limit 5 --install-policy never"
"""How a worker is started. The pull step of prefect.yaml asks it where its code lies."""
PLACES = {
    "image": "",
    "cuda_image": "",
    "network": "packhouse",
    "cache_volume": "packhouse-cache",
    "credentials_volume": "packhouse-credentials",
    "namespace": "packhouse",
    "store": "",
    "sources": "[]",
    "trusted_programs": "[]",
    "runtime_image": "",
    "registries": "[]",
    "mlflow_uri": "",
    "sign_pool": "",
    "signers": "[]",
    "sign_wait_s": "1800",
    "builder": "urn:packhouse:worker",
    "worker_image": "",
}
"""What a pool's template leaves open until it is applied. Nobody who starts a run can change it.
cuda_image: of the pool `cuda`, where it is another one than `image`. All from store on: what a container is told as
PACKHOUSE_*; Jobs on Kubernetes have them from their ConfigMap. sign_pool: never a key. signers: public keys
as JSON, in PEM. worker_image: where it is not
said, the pool's image, if that is named by digest.
credentials_volume: with AWS's shared file `credentials` and Docker's `config.json`, which Docker mounts, since whoever
may read a pool may read its variables."""


def apply(kind: str, places: Mapping[str, str]) -> list[str]:
    """One line for each thing that is now as it is meant to be.

    Raises Unavailable: the server does not answer. Refused: it wants another key, or has something else under one of
    our names. SpecInvalid: prefect.yaml does not say what came of it.
    """
    with _server() as api:
        said = [_pool(api, name, kind, places) for name in POOLS]
        said.append(_pool(api, SIGNERS, "process", places))
        _deploy()
        said += [_deployed(api, wanted) for wanted in deployments()]
        said += [_automation(api, wanted) for wanted in automations()]
    return said


def template(kind: str, pool: str, places: Mapping[str, str]) -> dict[str, Any]:
    """The base job template of a pool: what a run's infrastructure is, and the little that whoever starts it may say.
    Raises Refused: no image is named, or no store for containers."""
    path = HERE / "pools" / ("process.json" if kind == "process" else f"{kind}-{pool}.json")
    values = {**PLACES, **places}
    if pool == "cuda" and values["cuda_image"]:
        values["image"] = values["cuda_image"]
    if kind != "process" and not values["image"]:
        raise Refused("PH-0370 needs the worker's image", where=f"pool {pool}", next="give --image, by digest")
    if kind == "docker" and not values["store"]:
        raise Refused("PH-0371 needs the store", where=f"pool {pool}", next="give --store, and --sources as JSON")
    values["worker_image"] = values["worker_image"] or (values["image"] if "@sha256:" in values["image"] else "")
    filled: dict[str, Any] = _filled(json.loads(path.read_text()), values)
    return filled


def _filled(value: Any, places: Mapping[str, str]) -> Any:
    """The document with `${place}` filled in, wherever it stands in a string."""
    if isinstance(value, dict):
        return {name: _filled(each, places) for name, each in value.items()}
    if isinstance(value, list):
        return [_filled(each, places) for each in value]
    return re.sub(r"\$\{(\w+)\}", lambda found: places[found[1]], value) if isinstance(value, str) else value


def deployments() -> list[dict[str, Any]]:
    return list(_document()["deployments"])


def automations() -> list[AutomationCore]:
    return [AutomationCore.model_validate(each) for each in yaml.safe_load((HERE / "automations.yaml").read_text())]


def _document() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load(PREFECT_YAML.read_text())
    return document


@contextmanager
def _server() -> Iterator[SyncPrefectClient]:
    where = os.environ.get("PREFECT_API_URL", "")
    if not where:
        raise Refused("PH-0367 no server is named", where="PREFECT_API_URL", want="such as http://127.0.0.1:4200/api")
    try:
        with get_client(sync_client=True) as api:
            yield api
    except PrefectHTTPStatusError as error:
        status = error.response.status_code
        if status in (401, 403):
            next_step = "set PREFECT_API_AUTH_STRING to user:password"
            raise Refused(
                "PH-0369 the server wants another key", where=where, got=str(status), next=next_step
            ) from error
        words = squeezed(error.response.text)
        raise Unavailable("PH-0368 the server did not do it", where=where, got=f"{status} {words}") from error
    except (httpx.HTTPError, RuntimeError) as error:  # RuntimeError: Prefect's own words for a server that is away
        raise Unavailable("PH-0358 the server does not answer", where=where, got=squeezed(error)) from error


def _pool(api: SyncPrefectClient, name: str, kind: str, places: Mapping[str, str]) -> str:
    try:
        here: WorkPool = api.read_work_pool(name)
    except ObjectNotFound:
        wanted = template(kind, name, places)
        api.create_work_pool(WorkPoolCreate(name=name, type=kind, base_job_template=wanted))
        return f"pool {name}: {kind}, created"
    if here.type != kind:
        raise Refused(
            "PH-0366 is of another kind",
            where=f"pool {name}",
            got=here.type,
            want=kind,
            next=f"`prefect work-pool delete {name}`, once nothing runs in it",
        )
    wanted = template(kind, name, places)
    if here.base_job_template == wanted:
        return f"pool {name}: {kind}, unchanged"
    api.update_work_pool(name, WorkPoolUpdate(base_job_template=wanted))
    return f"pool {name}: {kind}, updated"


def _deploy() -> None:
    """By Prefect's own command, all at once: one by one, a default pool of the profile would win over the file."""
    environment = {name: value for name, value in os.environ.items() if name != "PACKHOUSE_WORKER"}
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all", "--prefect-file", str(PREFECT_YAML)]
    environment |= {"PYTHONPATH": str(ROOT), "NO_COLOR": "1", "PREFECT_DEPLOYMENTS_DEFAULT_WORK_POOL_NAME": ""}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = [line for line in f"{done.stdout}\n{done.stderr}".splitlines() if line.strip(" │╭╮╰╯─")]
        words = " ".join(" ".join(lines[-3:]).split())
        leaf = Unavailable if "Server error '5" in words else SpecInvalid
        raise leaf("prefect deploy failed", where=PREFECT_YAML.name, got=words)


def _deployed(api: SyncPrefectClient, meant: Mapping[str, Any]) -> str:
    """Read back: the server says what the file says. Raises SpecInvalid: it does not."""
    name = f"{meant['name']}/{meant['name']}"
    found, wanted = _found(api, api.read_deployment_by_name(name)), _wanted(meant)
    for key, value in wanted.items():
        if found[key] != value:
            raise SpecInvalid(
                f"PH-0365 {key} is not as the file says", where=name, got=str(found[key]), want=str(value)
            )
    return f"deployment {name}: pool {wanted['pool']}"


def _found(api: SyncPrefectClient, there: DeploymentResponse) -> dict[str, Any]:
    crons = [(each.schedule, each.active) for each in there.schedules if isinstance(each.schedule, CronSchedule)]
    limit, options = there.global_concurrency_limit, there.concurrency_options
    resource = {"resource_id": f"prefect.deployment.{there.id}"}
    listed = api.request("GET", "/automations/related-to/{resource_id}", path_params=resource)
    return {
        "pool": there.work_pool_name,
        "entrypoint": there.entrypoint,
        "tags": there.tags,
        "parameters": there.parameters,
        "schedules": [(schedule.cron, schedule.timezone, active) for schedule, active in crons],
        "concurrency limit": (limit.limit, options.collision_strategy.value) if limit and options else None,
        "triggers": sorted(each["name"] for each in listed.json()),
        "pull": there.pull_steps,
    }


def _wanted(meant: Mapping[str, Any]) -> dict[str, Any]:
    limit = meant.get("concurrency_limit")
    return {
        "pool": meant["work_pool"]["name"],
        "entrypoint": meant["entrypoint"],
        "tags": meant["tags"],
        "parameters": meant.get("parameters", {}),
        "schedules": [(each["cron"], each["timezone"], each["active"]) for each in meant.get("schedules", [])],
        "concurrency limit": (limit["limit"], limit["collision_strategy"]) if limit else None,
        "triggers": sorted(each["name"] for each in meant.get("triggers", [])),
        "pull": _document()["pull"],
    }


def _automation(api: SyncPrefectClient, wanted: AutomationCore) -> str:
    """By name. One that is as it should be is left alone: it would forget which runs it waits to hear of."""
    filtered = {"automations": {"name": {"any_": [wanted.name]}}}
    same = api.request("POST", "/automations/filter", json=filtered).json()
    document = wanted.model_dump(mode="json", exclude={"owner_resource"})
    for each in same[1:]:
        api.request("DELETE", "/automations/{id}", path_params={"id": each["id"]})
    if not same:
        api.request("POST", "/automations/", json=document)
        return f"automation {wanted.name}: created"
    if _core(same[0]) == _core(document):
        return f"automation {wanted.name}: unchanged"
    api.request("PUT", "/automations/{id}", path_params={"id": same[0]["id"]}, json=document)
    return f"automation {wanted.name}: updated"


def _core(document: Mapping[str, Any]) -> dict[str, Any]:
    """Without what the server adds."""
    fields = {name: value for name, value in document.items() if name in AutomationCore.model_fields}
    return AutomationCore.model_validate(fields).model_dump(mode="json", exclude={"trigger": {"id"}})


def parser() -> exit_status.Parser:
    """Of the options of `packhouse deploy`."""
    made = exit_status.Parser(prog="packhouse deploy", description=(__doc__ or "").splitlines()[0])
    made.add_argument("--kind", choices=KINDS, default="process", help="what the pools are")
    for place, default in PLACES.items():
        made.add_argument(f"--{place.replace('_', '-')}", default=default, help=f"default: {default or 'none'}")
    return made


def main(arguments: Sequence[str]) -> int:
    options = vars(parser().parse_args(arguments))
    kind = options.pop("kind")
    try:
        lines = apply(kind, options)
    except PackhouseError as error:
        return exit_status.said(error, verbose=False)
    sys.stdout.write("\n".join(lines) + "\n")
    if kind == "process":
        sys.stderr.write(f"workers of these pools, on this machine:\n{STARTED.format(folder=quote(str(ROOT)))}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
