"""The manifests, without a cluster: by the schema that Kubernetes' own client carries, and by kustomize."""

from __future__ import annotations

import json
import shutil
import subprocess
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.kubernetes_kinds import model_of, wrong

ROOT = Path(__file__).resolve().parents[3]
FOLDER = ROOT / "infra" / "deploy" / "kubernetes"
POOLS = ROOT / "infra" / "deploy" / "pools"
KUSTOMIZATION = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())


def manifests() -> list[dict[str, Any]]:
    return [each for name in KUSTOMIZATION["resources"] for each in yaml.safe_load_all((FOLDER / name).read_text())]


def of_kind(kind: str) -> dict[str, dict[str, Any]]:
    return {each["metadata"]["name"]: each for each in manifests() if each["kind"] == kind}


def workers() -> list[Any]:
    return [
        pytest.param(name, each["spec"]["template"]["spec"], id=name) for name, each in of_kind("Deployment").items()
    ]


def test_every_manifest_of_the_folder_is_applied():
    there = {path.name for path in FOLDER.glob("*.yaml")} - {"kustomization.yaml"}
    assert there == set(KUSTOMIZATION["resources"])


@pytest.mark.parametrize("manifest", manifests(), ids=lambda each: f"{each['kind']}-{each['metadata']['name']}")
def test_every_field_is_one_that_kubernetes_knows(manifest):
    assert not wrong(manifest, model_of(manifest))


def test_a_misspelt_field_a_wrong_type_and_a_missing_one_are_found():
    worker = of_kind("Deployment")["packhouse-worker-cpu"]
    misspelt, wrong_type, missing = deepcopy(worker), deepcopy(worker), deepcopy(worker)
    misspelt["spec"]["template"]["spec"]["containers"][0]["securityContext"]["readOnlyRootFileSystem"] = True
    wrong_type["spec"]["template"]["spec"]["containers"][0]["env"][0]["value"] = 1
    del missing["spec"]["selector"]
    assert "readOnlyRootFileSystem: no such field" in wrong(misspelt, "V1Deployment")[0]
    assert "1 is no str" in wrong(wrong_type, "V1Deployment")[0]
    assert "selector" in wrong(missing, "V1Deployment")[0]


@pytest.mark.parametrize("name, pod", workers())
def test_a_worker_has_no_privilege_and_can_write_nowhere_but_where_it_must(name, pod):
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == pod["securityContext"]["runAsGroup"] == 10001
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"hostNetwork", "hostPID", "hostIPC", "initContainers"} & pod.keys()
    (container,) = pod["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "privileged": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert [mount["mountPath"] for mount in container["volumeMounts"]] == ["/tmp"]
    assert all(set(volume) == {"name", "emptyDir"} for volume in pod["volumes"])
    assert container["resources"]["limits"]["memory"]


@pytest.mark.parametrize("name, pod", workers())
def test_a_worker_serves_its_own_pool_with_its_own_image_and_is_watched(name, pod):
    pool = name.rpartition("-")[2]
    (container,) = pod["containers"]
    arguments = container["args"]
    assert arguments[:3] == ["prefect", "worker", "start"]
    assert arguments[arguments.index("--pool") + 1] == pool
    assert arguments[arguments.index("--type") + 1] == "kubernetes"
    assert "--with-healthcheck" in arguments
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert container[probe]["httpGet"] == {"path": "/health", "port": "health"}
    images = {each["name"]: f"{each['newName']}:{each['newTag']}" for each in KUSTOMIZATION["images"]}
    assert images[container["image"]] == f"packhouse-worker:{pool}"


def test_no_secret_stands_in_a_manifest_and_jobs_get_the_password_by_reference():
    assert not of_kind("Secret")
    settings = of_kind("ConfigMap")["packhouse-worker"]["data"]
    assert not [
        name for name in settings if any(word in name for word in ("KEY", "SECRET", "PASSWORD", "AUTH", "TOKEN"))
    ]
    for worker in of_kind("Deployment").values():
        (container,) = worker["spec"]["template"]["spec"]["containers"]
        assert {"secretRef": {"name": "packhouse-worker"}} in container["envFrom"]
        told = {each["name"]: each["value"] for each in container["env"]}
        prefix = "PREFECT_INTEGRATIONS_KUBERNETES_WORKER_API_AUTH_STRING_SECRET_"
        assert (told[f"{prefix}NAME"], told[f"{prefix}KEY"]) == ("packhouse-worker", "PREFECT_API_AUTH_STRING")


def test_a_worker_may_start_jobs_here_and_nothing_else_and_a_job_may_do_nothing():
    assert not of_kind("ClusterRole")
    assert not of_kind("ClusterRoleBinding")
    ((_, role),) = of_kind("Role").items()
    allowed = {(resource, verb) for rule in role["rules"] for resource in rule["resources"] for verb in rule["verbs"]}
    assert not [each for each in allowed if "*" in each or each[0].startswith(("secrets", "roles", "configmaps"))]
    assert {resource for resource, verb in allowed if verb not in ("get", "list", "watch")} == {"jobs"}
    ((_, binding),) = of_kind("RoleBinding").items()
    assert [subject["name"] for subject in binding["subjects"]] == ["packhouse-worker"]
    assert of_kind("ServiceAccount")["packhouse-job"]["automountServiceAccountToken"] is False


def test_the_namespace_refuses_what_is_privileged_and_lets_nobody_in():
    labels = of_kind("Namespace")["packhouse"]["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    (policy,) = of_kind("NetworkPolicy").values()
    assert policy["spec"] == {"podSelector": {}, "policyTypes": ["Ingress"]}


@pytest.mark.parametrize("pool", ["cpu", "cuda"])
def test_what_the_jobs_of_a_pool_refer_to_is_there(pool):
    template = json.loads((POOLS / f"kubernetes-{pool}.json").read_text())["job_configuration"]["job_manifest"]
    pod = template["spec"]["template"]["spec"]
    assert pod["serviceAccountName"] in of_kind("ServiceAccount")
    for each in pod["containers"][0]["envFrom"]:
        assert each.get("configMapRef", each.get("secretRef"))["name"] == "packhouse-worker"
    labels = set(pod.get("labels", {}))
    assert not labels & {"packhouse/pool"}, "a job is no worker, and no worker's selector may choose it"


def test_kustomize_makes_one_set_of_it_in_one_namespace():
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not here: `kubectl kustomize` was NOT run")
    done = subprocess.run(["kubectl", "kustomize", FOLDER], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    made = list(yaml.safe_load_all(done.stdout))
    assert len(made) == len(manifests())
    assert {each["metadata"].get("namespace", "packhouse") for each in made} == {"packhouse"}
    assert not [line for each in made for line in wrong(each, model_of(each))]
    images = {
        each["spec"]["template"]["spec"]["containers"][0]["image"] for each in made if each["kind"] == "Deployment"
    }
    assert images == {"packhouse-worker:cpu", "packhouse-worker:cuda"}
