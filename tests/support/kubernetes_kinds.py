"""Kubernetes' own schema, as its Python client carries it: which fields there are, and of which type."""

from __future__ import annotations

import re
from typing import Any

from kubernetes_asyncio import client

PLAIN = {"str": str, "int": int, "bool": bool, "float": (int, float), "object": object, "datetime": str}


def model_of(document: dict[str, Any]) -> str:
    """Such as V1Deployment: of apps/v1 and Deployment."""
    return f"{document['apiVersion'].rpartition('/')[2].capitalize()}{document['kind']}"


def wrong(value: Any, type_name: str, where: str = "") -> list[str]:
    """What Kubernetes would not take: a field that it does not know, a value of another type, one that is missing."""
    if inner := re.fullmatch(r"list\[(.+)\]", type_name):
        if not isinstance(value, list):
            return [f"{where}: no list"]
        return [line for at, each in enumerate(value) for line in wrong(each, inner[1], f"{where}[{at}]")]
    if inner := re.fullmatch(r"dict[(\[]str, (.+)[)\]]", type_name):
        if not isinstance(value, dict):
            return [f"{where}: no map"]
        return [line for key, each in value.items() for line in wrong(each, inner[1], f"{where}.{key}")]
    if type_name in PLAIN:
        right = isinstance(value, PLAIN[type_name]) and (type_name == "bool" or type(value) is not bool)
        return [] if right or type_name == "object" else [f"{where}: {value!r} is no {type_name}"]
    return _wrong_fields(value, getattr(client, type_name), where)


def _wrong_fields(value: Any, model: Any, where: str) -> list[str]:
    if not isinstance(value, dict):
        return [f"{where}: no map"]
    names = {written: name for name, written in model.attribute_map.items()}
    found = [f"{where}.{key}: no such field" for key in value.keys() - names.keys()]
    for key in value.keys() & names.keys():
        found += wrong(value[key], model.openapi_types[names[key]], f"{where}.{key}")
    try:
        model(**{names[key]: each for key, each in value.items() if key in names})
    except ValueError as error:  # a required one is missing, or not one of the enumerated
        found.append(f"{where}: {error}")
    return found
