"""The pools' templates, through Prefect's own workers and its server's own check: what is closed stays closed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import pytest
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import Flow, FlowRun
from prefect.utilities.schema_tools import validate
from prefect.utilities.schema_tools.validation import ValidationError
from prefect.workers.process import ProcessJobConfiguration
from prefect_docker.worker import DockerWorkerJobConfiguration
from prefect_kubernetes.worker import KubernetesWorkerJobConfiguration

from infra.deploy.apply import POOLS, main, template
from infra.settings import Settings
from packhouse.errors import Refused
from tests.support.kubernetes_kinds import wrong

IMAGE = "registry.example/packhouse-worker@sha256:" + "0" * 64
NOWHERE = "http://127.0.0.1:9/api"
CONFIGURATIONS = {
    "process": ProcessJobConfiguration,
    "docker": DockerWorkerJobConfiguration,
    "kubernetes": KubernetesWorkerJobConfiguration,
}
EACH = [(kind, pool) for kind in CONFIGURATIONS for pool in POOLS]
HOSTILE: list[dict[str, Any]] = [
    {"command": "touch /tmp/owned"},
    {"env": {"LD_PRELOAD": "/tmp/owned.so"}},
    {"env.LD_PRELOAD": "/tmp/owned.so"},
    {"image": "evil.example/x"},
    {"working_dir": "/etc"},
    {"volumes": ["/:/host"]},
    {"privileged": True},
    {"networks": ["host"]},
    {"network_mode": "host"},
    {"container_create_kwargs": {"privileged": True}},
    {"service_account_name": "cluster-admin"},
    {"namespace": "kube-system"},
    {"job_manifest": {"spec": {}}},
    {"labels": {"app": "other"}},
]


TOLD = {"store": "s3://b/releases", "sources": '["s3://b/sources"]'}


def filled(kind: str, pool: str) -> dict[str, Any]:
    return template(kind, pool, {"image": IMAGE, **TOLD})


def rendered(kind: str, pool: str, job_variables: dict[str, Any] | None = None) -> dict[str, Any]:
    """What a worker would start, by its own code."""
    (document,) = rendered_each(kind, pool, [job_variables or {}])
    return document


def rendered_each(kind: str, pool: str, each: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """For each of these job variables. One client serves all: opening one takes longer than what it is for."""
    base = filled(kind, pool)

    async def configurations() -> list[Any]:
        async with PrefectClient(NOWHERE) as client:  # there are no blocks to ask for
            return [
                await CONFIGURATIONS[kind].from_template_and_values(
                    base_job_template=base, values=job_variables, client=client
                )
                for job_variables in each
            ]

    return [prepared(made) for made in asyncio.run(configurations())]


def prepared(made: Any) -> dict[str, Any]:
    """As the worker makes it ready for a run."""
    identity = UUID(int=1)
    made.prepare_for_flow_run(
        FlowRun(id=identity, flow_id=identity, name="run"), flow=Flow(id=identity, name="release")
    )
    document: dict[str, Any] = made.model_dump(mode="json")
    return document


def taken(kind: str, pool: str, job_variables: dict[str, Any]) -> bool:
    """Whether the server takes them, from a run or from a deployment."""
    try:
        validate(job_variables, filled(kind, pool)["variables"], raise_on_error=True, allow_none_with_default=True)
    except ValidationError:
        return False
    return True


def pod(document: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = document["job_manifest"]["spec"]["template"]["spec"]
    return found


def environment(kind: str, document: dict[str, Any]) -> dict[str, str]:
    if kind == "kubernetes":
        return {each["name"]: each["value"] for each in pod(document)["containers"][0]["env"]}
    return dict(document["env"])


@pytest.mark.parametrize("kind, pool", EACH)
def test_a_template_renders_through_prefects_own_worker(kind, pool):
    document = rendered(kind, pool)
    assert environment(kind, document)["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"] == "30"
    assert "${" not in json.dumps(filled(kind, pool))
    assert (IMAGE in json.dumps(document)) == (kind != "process")


@pytest.mark.parametrize("kind, pool", EACH)
def test_the_server_takes_nothing_that_is_closed(kind, pool):
    assert [given for given in HOSTILE if taken(kind, pool, given)] == []


@pytest.mark.parametrize("kind, pool", EACH)
def test_what_got_past_the_server_changes_nothing_that_runs(kind, pool):
    """But for `env`: Prefect merges it whatever the template says, and the server's refusal is all there is."""
    harmful = [given for given in HOSTILE if not next(iter(given)).startswith("env")]
    usual, *others = rendered_each(kind, pool, [{}, *harmful])
    assert [given for given, other in zip(harmful, others, strict=True) if other != usual] == []


@pytest.mark.parametrize("kind, pool", EACH)
def test_what_is_open_is_open_within_bounds(kind, pool):
    assert taken(kind, pool, {})
    assert taken(kind, pool, {"name": "mine"})
    if kind == "docker":
        assert taken(kind, pool, {"mem_limit": "8g"})
        assert not taken(kind, pool, {"mem_limit": "-1"})
        assert rendered(kind, pool, {"mem_limit": "8g"})["mem_limit"] == "8g"
    if kind == "kubernetes":
        assert not taken(kind, pool, {"memory_limit": "lots"})
        (container,) = pod(rendered(kind, pool, {"memory_limit": "48Gi"}))["containers"]
        assert container["resources"]["limits"]["memory"] == "48Gi"


@pytest.mark.parametrize("pool", POOLS)
def test_a_container_has_no_root_no_privilege_and_limits(pool):
    document = rendered("docker", pool)
    create = document["container_create_kwargs"]
    assert document["privileged"] is False
    assert (create["user"], create["read_only"], create["cap_drop"]) == ("10001:10001", True, ["ALL"])
    assert create["security_opt"] == ["no-new-privileges:true"]
    assert create["pids_limit"]
    assert document["mem_limit"]
    assert not [volume for volume in document["volumes"] if volume.startswith("/")], "no folder of the host, no socket"
    assert ("device_requests" in create) == (pool == "cuda")


@pytest.mark.parametrize("pool", POOLS)
def test_a_job_is_one_that_kubernetes_takes_under_its_restricted_standard(pool):
    document = rendered("kubernetes", pool)
    spec = pod(document)
    assert [spec.pop("parallelism"), spec.pop("completions")] == [1, 1], "Prefect insists; Kubernetes drops them"
    assert wrong(document["job_manifest"], "V1Job") == []
    (container,) = spec["containers"]
    assert spec["securityContext"]["runAsNonRoot"]
    assert spec["securityContext"]["runAsUser"] == 10001
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["automountServiceAccountToken"] is False
    assert not [volume for volume in spec["volumes"] if "hostPath" in volume]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "privileged": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert container["resources"]["limits"]["memory"]
    assert ("nvidia.com/gpu" in container["resources"]["limits"]) == (pool == "cuda")
    assert ("nodeSelector" in spec) == ("tolerations" in spec) == (pool == "cuda")


@pytest.mark.parametrize("pool", ["cpu", "cuda"])
def test_a_container_is_told_its_store_and_where_sources_may_lie(pool):
    environment = rendered("docker", pool)["env"]
    assert environment["PACKHOUSE_STORE"] == TOLD["store"]
    assert environment["PACKHOUSE_SOURCES"] == TOLD["sources"]


def test_a_container_builds_no_images_unless_it_is_told_on_what_and_where_to():
    none, told = {"image": IMAGE, **TOLD}, {"runtime_image": f"r.example/runtime@{'sha256:' + '0' * 64}"}
    told |= {"registries": '["r.example/models"]'}
    for places, want in ((none, ("", "[]")), (none | told, (told["runtime_image"], told["registries"]))):
        environment = template("docker", "cpu", places)["job_configuration"]["env"]
        assert (environment["PACKHOUSE_RUNTIME_IMAGE"], environment["PACKHOUSE_REGISTRIES"]) == want
        assert environment["DOCKER_CONFIG"] == "/run/packhouse"


@pytest.mark.parametrize("pool", POOLS)
def test_a_container_is_told_who_signs_and_what_it_runs_in_and_never_a_key(pool):
    """By the names that settings have; what is not said is what settings have without it."""
    unsaid = told_settings(pool, {"image": IMAGE, **TOLD})
    assert (unsaid.sign_pool, unsaid.builder, unsaid.signs) == ("", Settings().builder, False)
    assert unsaid.sign_wait_s == Settings().sign_wait_s
    assert unsaid.worker_image == IMAGE
    told = {"sign_pool": "sign", "builder": "urn:acme:packhouse", "sign_wait_s": "60", "worker_image": "w@sha256:1"}
    known = "-----BEGIN PUBLIC KEY-----\nMFkw\n-----END PUBLIC KEY-----\n"
    said = told_settings(pool, {"image": IMAGE, **TOLD, **told, "signers": json.dumps([known])})
    assert said.signers == (known,)
    assert (said.sign_pool, said.builder, said.sign_wait_s, said.worker_image) == (
        "sign",
        "urn:acme:packhouse",
        60,
        "w@sha256:1",
    )
    by_tag = told_settings(pool, {"image": "worker:cpu", **TOLD})
    assert by_tag.worker_image == "", "a tag says nothing of what ran"


def told_settings(pool: str, places: dict[str, str]) -> Settings:
    """As a run in the container reads them."""
    environment = template("docker", pool, places)["job_configuration"]["env"]
    assert not [name for name in environment if "KEY" in name or "PASSWORD" in name]
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        return Settings()


def test_a_run_of_the_pool_that_pushes_images_finds_its_login_where_it_is_told_and_no_other_run_gets_it():
    """The Job's from a Secret that may be absent, the container's from a volume; neither can be written to."""
    login = "/run/packhouse"
    job, (container,) = rendered("kubernetes", "cpu"), pod(rendered("kubernetes", "cpu"))["containers"]
    assert environment("kubernetes", job)["DOCKER_CONFIG"] == login
    (mount,) = [each for each in container["volumeMounts"] if each["mountPath"] == login]
    (volume,) = [each for each in pod(job)["volumes"] if each["name"] == mount["name"]]
    assert mount["readOnly"] is True
    assert volume["secret"] == {
        "secretName": "packhouse-registry",
        "optional": True,
        "defaultMode": 0o440,  # the pod's group, which is fsGroup, may read; that is the run
        "items": [{"key": ".dockerconfigjson", "path": "config.json"}],
    }
    document = rendered("docker", "cpu")
    assert environment("docker", document)["DOCKER_CONFIG"] == login
    assert [each for each in document["volumes"] if each.endswith(f":{login}:ro")]
    for kind in ("kubernetes", "docker"):
        assert "DOCKER_CONFIG" not in environment(kind, rendered(kind, "cuda"))
    assert not [each for each in pod(rendered("kubernetes", "cuda"))["volumes"] if "secret" in each]


def test_a_container_trusts_no_programs_unless_it_is_told_where():
    told = {"image": IMAGE, **TOLD, "trusted_programs": '["s3://b/programs"]'}
    for places, trusted in ((told | {"trusted_programs": "[]"}, "[]"), (told, '["s3://b/programs"]')):
        environment = template("docker", "cpu", places)["job_configuration"]["env"]
        assert environment["PACKHOUSE_TRUSTED_PROGRAMS"] == trusted


def test_the_pool_with_gpus_has_an_image_of_its_own_where_one_is_named():
    places = {"image": IMAGE, "cuda_image": "cuda@sha256:1"}
    assert "cuda@sha256:1" in json.dumps(template("kubernetes", "cuda", places))
    assert "cuda@sha256:1" not in json.dumps(template("kubernetes", "cpu", places))
    assert IMAGE in json.dumps(template("docker", "cuda", {"image": IMAGE, **TOLD}))


def test_a_pool_of_containers_needs_an_image_and_its_name_is_data(capsys, monkeypatch):
    with pytest.raises(Refused, match="--image"):
        template("docker", "cpu", {})
    with pytest.raises(Refused, match="--store"):
        template("docker", "cpu", {"image": IMAGE})
    hostile = template("docker", "cpu", {"image": 'x", "privileged": true, "labels": "', **TOLD})
    assert hostile["job_configuration"]["privileged"] is False
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    assert main([]) == 1
    assert "PREFECT_API_URL" in capsys.readouterr().err
