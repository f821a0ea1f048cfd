"""What /openapi.json says of the bodies, for this very model."""

from __future__ import annotations

from typing import Any

from packhouse.serving.datatypes import Datatype
from packhouse.serving.io_signature import Contract, Wanted


def predict(contract: Contract) -> dict[str, Any]:
    inputs = {wanted.name: _nested(wanted, wanted.shape) for wanted in contract.inputs}
    bodies = [_object({"inputs": _object(inputs)})]
    if contract.batch is not None:
        row = _object({wanted.name: _nested(wanted, wanted.shape[1:]) for wanted in contract.inputs})
        rows = [row, *_column_row(contract)]
        if len(contract.inputs) == 1:
            rows.append(_nested(contract.inputs[0], contract.inputs[0].shape[1:]))
        bodies.append(_object({"rows": {"type": "array", "minItems": 1, "items": {"anyOf": rows}}}))
    return _body({"application/json": {"schema": {"anyOf": bodies}}})


def infer(contract: Contract) -> dict[str, Any]:
    tensors = [
        {
            "type": "object",
            "required": ["name", "datatype", "shape"],
            "properties": {
                "name": {"const": wanted.name},
                "datatype": {"const": wanted.datatype.value},
                "shape": {"type": "array", "items": {"type": "integer"}, "description": str(list(wanted.shape))},
                "data": {"type": "array", "items": {}},
                "parameters": {"type": "object"},
            },
        }
        for wanted in contract.inputs
    ]
    properties: dict[str, Any] = {
        "id": {"type": "string"},
        "parameters": {"type": "object"},
        "inputs": {"type": "array", "items": {"anyOf": tensors}},
        "outputs": {"type": "array", "items": {"type": "object"}},
    }
    schema = {"type": "object", "required": ["inputs"], "properties": properties}
    binary = {"type": "string", "format": "binary"}
    return _body({"application/json": {"schema": schema}, "application/octet-stream": {"schema": binary}})


def _body(content: dict[str, Any]) -> dict[str, Any]:
    return {"requestBody": {"required": True, "content": content}}


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "required": list(properties),
        "properties": properties,
        "additionalProperties": False,
    }


def _column_row(contract: Contract) -> list[dict[str, Any]]:
    return [_object({name: _item(contract.inputs[0]) for name in contract.columns})] if contract.columns else []


def _nested(wanted: Wanted, shape: tuple[int | str, ...]) -> dict[str, Any]:
    schema = _item(wanted)
    for size in reversed(shape):
        bounds = {"minItems": size, "maxItems": size} if isinstance(size, int) else {"description": f"axis {size}"}
        schema = {"type": "array", "items": schema, **bounds}
    return schema


def _item(wanted: Wanted) -> dict[str, Any]:
    if wanted.datatype is Datatype.BOOL:
        return {"type": "boolean"}
    if wanted.datatype is Datatype.BYTES:
        return {"type": "string"}
    bounds = {"minimum": wanted.range[0], "maximum": wanted.range[1]} if wanted.range else {}
    return {"type": "number" if wanted.datatype.floating else "integer", **bounds}
