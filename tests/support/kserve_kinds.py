"""KServe's two kinds, as far as ours use them. Its Python client has them all, and too much besides to be installed.

Source: the models of kserve 0.21.0 on PyPI (v1beta1_predictor_spec.py, v1beta1_model_spec.py,
v1alpha1_serving_runtime_spec.py). A pod's and a container's fields are Kubernetes' own, which `kinds` knows.
"""

from __future__ import annotations

from typing import Any

from tests.support.kubernetes_kinds import wrong

FIELDS: dict[str, dict[str, str]] = {
    "InferenceService": {
        "apiVersion": "str",
        "kind": "str",
        "metadata": "V1ObjectMeta",
        "spec": "InferenceServiceSpec",
    },
    "InferenceServiceSpec": {"predictor": "PredictorSpec"},
    "PredictorSpec": {
        "minReplicas": "int",
        "maxReplicas": "int",
        "automountServiceAccountToken": "bool",
        "enableServiceLinks": "bool",
        "terminationGracePeriodSeconds": "int",
        "securityContext": "V1PodSecurityContext",
        "model": "ModelSpec",
    },
    "ModelSpec": {
        "modelFormat": "ModelFormat",
        "runtime": "str",
        "protocolVersion": "str",
        "storageUri": "str",
        "resources": "V1ResourceRequirements",
    },
    "ModelFormat": {"name": "str", "version": "str"},
    "ServingRuntime": {"apiVersion": "str", "kind": "str", "metadata": "V1ObjectMeta", "spec": "ServingRuntimeSpec"},
    "ServingRuntimeSpec": {
        "annotations": "dict(str, str)",
        "supportedModelFormats": "list[SupportedModelFormat]",
        "protocolVersions": "list[str]",
        "containers": "list[V1Container]",
    },
    "SupportedModelFormat": {"name": "str", "version": "str", "autoSelect": "bool", "priority": "int"},
}


def wrong_in_kserve(value: Any, kind: str, where: str = "") -> list[str]:
    """What KServe would not take: a field that it does not know, a value of another type."""
    if kind.startswith("list[") and (inner := kind[5:-1]) in FIELDS:
        if not isinstance(value, list):
            return [f"{where}: no list"]
        return [line for at, each in enumerate(value) for line in wrong_in_kserve(each, inner, f"{where}[{at}]")]
    if kind not in FIELDS:
        return wrong(value, kind, where)
    if not isinstance(value, dict):
        return [f"{where}: no map"]
    known = FIELDS[kind]
    found = [f"{where}.{key}: no such field" for key in value.keys() - known.keys()]
    for key in value.keys() & known.keys():
        found += wrong_in_kserve(value[key], known[key], f"{where}.{key}")
    return found
