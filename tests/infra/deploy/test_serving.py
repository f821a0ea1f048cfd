"""What serves a model's image on Kubernetes and KServe, without a cluster: kustomize makes it, schemas hold it."""

from __future__ import annotations

import re
import shutil
import subprocess
from copy import deepcopy
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from infra.images.builders import MODELS, USER
from tests.support.kserve_kinds import FIELDS, wrong_in_kserve
from tests.support.kubernetes_kinds import model_of, wrong

FOLDER = Path(__file__).resolve().parents[3] / "infra" / "deploy" / "serving"
IMAGE, NAME = f"registry.example:5000/team/fraud@sha256:{'ab' * 32}", "fraud"
VARIANTS = ("image", "volume", "kserve")
WITH_PODS = ("image", "volume")
KUBECTL = pytest.mark.skipif(shutil.which("kubectl") is None, reason="no kubectl: `kubectl kustomize` was NOT run")


def kustomized(folder: Path) -> list[dict[str, Any]]:
    done = subprocess.run(["kubectl", "kustomize", folder], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A variant's objects, as a user gets them who copies the example and fills in three lines."""
    root = tmp_path_factory.mktemp("deploy") / "serving"
    shutil.copytree(FOLDER, root)

    @lru_cache
    def of(variant: str) -> dict[str, dict[str, Any]]:
        mine = root / f"fraud-{variant}"
        shutil.copytree(root / "example", mine)
        model, chosen = mine / "model.yaml", mine / "kustomization.yaml"
        text, (repository, digest) = model.read_text(), IMAGE.split("@")
        for key, value in {"name": NAME, "repository": repository, "digest": digest}.items():
            text, count = re.subn(rf"^  {key}: (?!model$).*$", f"  {key}: {value}", text, flags=re.M)
            assert count == 1, key
        model.write_text(text)
        chosen.write_text(chosen.read_text().replace("../image", f"../{variant}"))
        return {each["kind"]: each for each in kustomized(mine)}

    return of


def pod_of(document: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = document["spec"]["template"]["spec"]
    return found


def findings(document: dict[str, Any]) -> list[str]:
    return (
        wrong_in_kserve(document, document["kind"])
        if document["kind"] in FIELDS
        else wrong(document, model_of(document))
    )


@KUBECTL
@pytest.mark.parametrize("variant", VARIANTS)
def test_three_lines_make_a_set_that_kubernetes_knows_and_nothing_of_the_example_is_left(made, variant):
    objects = made(variant)
    assert "ConfigMap" not in objects, "what is filled in never reaches the cluster"
    want = (
        {"InferenceService"}
        if variant == "kserve"
        else {"Deployment", "Service", "PodDisruptionBudget", "NetworkPolicy"}
    )
    assert objects.keys() == want
    for each in objects.values():
        assert findings(each) == []
        assert each["metadata"]["name"] == each["metadata"]["labels"]["app.kubernetes.io/instance"] == NAME
    assert not re.search(r"churn|packhouse-model@|: model\b|: packhouse-runtime", yaml.safe_dump_all(objects.values()))


@KUBECTL
def test_the_images_are_by_digest_and_lie_where_the_server_looks(made):
    (server,) = pod_of(made("image")["Deployment"])["containers"]
    assert server["image"] == IMAGE
    pod = pod_of(made("volume")["Deployment"])
    (server,), (volume,) = pod["containers"], pod["volumes"]
    assert re.fullmatch(r"registry\.example/models/runtime@sha256:\w{64}", server["image"])
    assert volume["image"] == {"reference": IMAGE, "pullPolicy": "IfNotPresent"}
    (mount,) = server["volumeMounts"]
    assert mount == {"name": volume["name"], "mountPath": "/model", "readOnly": True}
    assert server["env"] == [{"name": "MODEL_DIR", "value": f"{mount['mountPath']}/{MODELS}"}]
    model = made("kserve")["InferenceService"]["spec"]["predictor"]["model"]
    assert model["storageUri"] == f"oci://{IMAGE}"


@KUBECTL
@pytest.mark.parametrize("variant", WITH_PODS)
def test_the_service_the_budget_and_the_policy_choose_this_models_pods_and_no_others(made, variant):
    objects = made(variant)
    labels = objects["Deployment"]["spec"]["template"]["metadata"]["labels"]
    mine = {"app.kubernetes.io/name": "packhouse-model", "app.kubernetes.io/instance": NAME}
    assert mine.items() <= labels.items()
    assert objects["Deployment"]["spec"]["selector"]["matchLabels"] == mine
    assert objects["Service"]["spec"]["selector"] == mine
    assert objects["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == mine
    assert objects["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"] == mine
    assert objects["NetworkPolicy"]["spec"]["egress"] == []
    (spread,) = pod_of(objects["Deployment"])["topologySpreadConstraints"]
    assert spread["labelSelector"]["matchLabels"] == mine
    assert objects["PodDisruptionBudget"]["spec"]["maxUnavailable"] < objects["Deployment"]["spec"]["replicas"]


def of_a_runtime() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((FOLDER / "kserve-runtime" / "runtime.yaml").read_text())
    return found


def servers() -> dict[str, dict[str, Any]]:
    """The container that serves, of the plain files."""
    deployment = yaml.safe_load((FOLDER / "base" / "deployment.yaml").read_text())
    return {"image": pod_of(deployment)["containers"][0], "kserve": of_a_runtime()["spec"]["containers"][0]}


@pytest.mark.parametrize("variant", servers())
def test_a_server_has_no_privilege_a_limit_and_is_asked_how_it_is(variant):
    server = servers()[variant]
    assert server["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "privileged": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert server["resources"]["limits"].keys() == {"cpu", "memory"}
    paths = {"startupProbe": "/health", "readinessProbe": "/ready", "livenessProbe": "/health"}
    assert {name: server[name]["httpGet"]["path"] for name in paths} == paths
    assert server["ports"][0]["containerPort"] == 8080


@KUBECTL
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_pod_is_the_images_user_without_an_account_under_the_restricted_standard(made, variant):
    objects = made(variant)
    pod = objects["InferenceService"]["spec"]["predictor"] if variant == "kserve" else pod_of(objects["Deployment"])
    user, group = map(int, USER.split(":"))
    assert pod["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": user,
        "runAsGroup": group,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert pod["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False
    assert not {"hostNetwork", "hostPID", "hostIPC", "serviceAccountName"} & pod.keys()
    assert all(set(volume) == {"name", "image"} for volume in pod.get("volumes", [])), "nothing to write to"


@KUBECTL
def test_the_runtime_of_kserve_serves_what_the_service_asks_for_from_where_kserve_links_it(made):
    (runtime,) = kustomized(FOLDER / "kserve-runtime")
    assert findings(runtime) == []
    (server,) = runtime["spec"]["containers"]
    assert server["name"] == "kserve-container", "KServe looks for this name"
    assert server["env"] == [{"name": "MODEL_DIR", "value": "/mnt/models"}]
    assert re.fullmatch(r"registry\.example/models/runtime@sha256:\w{64}", server["image"])
    model = made("kserve")["InferenceService"]["spec"]["predictor"]["model"]
    assert model["runtime"] == runtime["metadata"]["name"]
    assert model["modelFormat"]["name"] in {each["name"] for each in runtime["spec"]["supportedModelFormats"]}
    assert model["protocolVersion"] in runtime["spec"]["protocolVersions"]


def test_a_misspelt_field_and_a_wrong_type_in_kserves_kinds_are_found():
    service = yaml.safe_load((FOLDER / "kserve" / "service.yaml").read_text())
    misspelt, deep, wrong_type = deepcopy(service), deepcopy(of_a_runtime()), deepcopy(service)
    misspelt["spec"]["predictor"]["model"]["storageURI"] = "oci://x"
    deep["spec"]["containers"][0]["securityContext"]["readOnlyRootFileSystem"] = True
    wrong_type["spec"]["predictor"]["minReplicas"] = "2"
    assert findings(misspelt) == [".spec.predictor.model.storageURI: no such field"]
    assert findings(deep) == [".spec.containers[0].securityContext.readOnlyRootFileSystem: no such field"]
    assert findings(wrong_type) == [".spec.predictor.minReplicas: '2' is no int"]
