"""The Open Inference Protocol, version 2, over REST, with the binary tensor data extension: one request, one answer.

https://github.com/kserve/open-inference-protocol. With the header Inference-Header-Content-Length, that many bytes of
the body are JSON, and behind them lie the tensors that have a `binary_data_size`, in order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from packhouse.formats.arrays import Array
from packhouse.serving.datatypes import datatype_of
from packhouse.serving.errors import NotServed, RequestRefused
from packhouse.serving.io_signature import Contract, Wanted
from packhouse.serving.responses import BINARY, Answer, dump, parse
from packhouse.serving.tensors import MAX_RANK, from_binary, from_json, shaped, to_binary, to_json

HEADER = "Inference-Header-Content-Length"
EXTENSIONS = ["binary_tensor_data"]
MAX_ID = 256
_NOT_DONE = ("classification", "shared_memory_region")

Run = Callable[[Mapping[str, Array]], dict[str, Array]]


@dataclass(frozen=True)
class Asked:
    """id: of the client; empty: it gave none. outputs: name -> whether it goes back as binary data."""

    id: str
    inputs: dict[str, Array]
    outputs: dict[str, bool]


def infer(contract: Contract, run: Run, body: bytes, header: str | None, max_json: int) -> Answer:
    """header: the value of HEADER. Raises RequestRefused."""
    asked = read(contract, body, header, max_json)
    return _answer(contract, asked, run(contract.check(asked.inputs)))


def read(contract: Contract, body: bytes, header: str | None, max_json: int) -> Asked:
    """Raises RequestRefused: not such a request."""
    size = len(body) if header is None else _size(header, "header " + HEADER)
    if size > len(body):
        raise RequestRefused(
            "PH-0506 longer than the body", where="header " + HEADER, got=str(size), want=str(len(body))
        )
    document = parse(memoryview(body)[:size], max_json)
    identity, parameters = document.get("id", ""), _parameters(document, "request")
    if not isinstance(identity, str) or len(identity) > MAX_ID:
        raise RequestRefused("PH-0507 is no text, or too long", where="id", want=f"at most {MAX_ID} characters")
    binary = memoryview(body)[size:]
    inputs: dict[str, Array] = {}
    for place, entry in enumerate(_entries(document, "inputs")):
        where = f"inputs[{place}]"
        wanted = contract.input(entry.get("name"), where)
        if wanted.name in inputs:
            raise RequestRefused("PH-0509 stands there twice", where=f"{where}: {wanted.name}")
        inputs[wanted.name], binary = _input(wanted, entry, binary, f"{where}: {wanted.name}")
    if len(binary):
        raise RequestRefused("PH-0508 there is binary data that no input claims", got=f"{len(binary):,} bytes")
    return Asked(identity, inputs, _outputs(contract, document, parameters))


def _input(wanted: Wanted, entry: Mapping[str, Any], binary: memoryview, where: str) -> tuple[Array, memoryview]:
    """The tensor, and the binary data that is left."""
    if (datatype := entry.get("datatype")) != wanted.datatype.value:
        raise RequestRefused("PH-0472 has another datatype", where=where, got=str(datatype)[:80], want=wanted.datatype)
    shape = _shape(entry.get("shape"), where)
    size = _parameters(entry, where).get("binary_data_size")
    if size is None:
        if "data" not in entry:
            raise RequestRefused("PH-0505 has no data", where=where, want="data, or parameters.binary_data_size")
        return shaped(from_json(entry["data"], wanted.datatype, where), shape, where), binary
    size = _size(size, f"{where}: binary_data_size")
    if "data" in entry:
        raise RequestRefused("PH-0503 has data twice", where=where, want="data, or parameters.binary_data_size")
    if size > len(binary):
        raise RequestRefused(
            "PH-0504 more binary data than there is", where=where, got=f"{size:,}", want=f"{len(binary):,}"
        )
    return from_binary(binary[:size], wanted.datatype, shape, where), binary[size:]


def _outputs(contract: Contract, document: Mapping[str, Any], parameters: Mapping[str, Any]) -> dict[str, bool]:
    """All of them, in the model's order, where the request names none."""
    binary = _flag(parameters, "binary_data_output", False, "request")
    known = [wanted.name for wanted in contract.outputs]
    if not document.get("outputs"):
        return dict.fromkeys(known, binary)
    asked: dict[str, bool] = {}
    for place, entry in enumerate(_entries(document, "outputs")):
        where = f"outputs[{place}]"
        if (name := entry.get("name")) not in known:
            want = ", ".join(known)
            raise RequestRefused("PH-0502 the model has no such output", where=where, got=str(name)[:80], want=want)
        asked[name] = _flag(_parameters(entry, where), "binary_data", binary, where)
    return asked


def _answer(contract: Contract, asked: Asked, found: Mapping[str, Array]) -> Answer:
    outputs, blobs = [], []
    for name, binary in asked.outputs.items():
        array = found[name]
        entry: dict[str, Any] = {"name": name, "datatype": datatype_of(array).value, "shape": list(array.shape)}
        if binary:
            blobs.append(to_binary(array))
            entry["parameters"] = {"binary_data_size": len(blobs[-1])}
        else:
            entry["data"] = to_json(array.reshape(-1))
        outputs.append(entry)
    document = {"model_name": contract.model, "model_version": contract.version, "outputs": outputs}
    head = dump(document | ({"id": asked.id} if asked.id else {}))
    if not blobs:
        return Answer(head)
    return Answer(b"".join((head, *blobs)), BINARY, {HEADER: str(len(head))})


def check_model(contract: Contract, model: str, version: str | None) -> None:
    """Raises NotServed: this server has another model or version."""
    if model != contract.model:
        raise NotServed("PH-0500 no such model here", got=model[:80], want=contract.model)
    if version is not None and version != contract.version:
        raise NotServed("PH-0501 no such version here", got=version[:80], want=contract.version)


def metadata(contract: Contract) -> dict[str, Any]:
    """The protocol's document about a model. Its version is the release's id."""

    def tensors(some: tuple[Wanted, ...]) -> list[dict[str, Any]]:
        return [{"name": each.name, "datatype": each.datatype.value, "shape": each.wire_shape} for each in some]

    return {
        "name": contract.model,
        "versions": [contract.version],
        "platform": "onnxruntime_onnx",
        "inputs": tensors(contract.inputs),
        "outputs": tensors(contract.outputs),
    }


def _entries(document: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    found = document.get(key)
    if not isinstance(found, list) or not all(isinstance(entry, dict) for entry in found):
        raise RequestRefused("PH-0499 is not a list of tensors", where=key, want='[{"name": ..., ...}]')
    return found


def _parameters(entry: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    """Unknown ones are ignored, as the protocol says; not those that would change the answer."""
    found = entry.get("parameters", {})
    if not isinstance(found, dict):
        raise RequestRefused("PH-0497 is not an object", where=f"{where}: parameters")
    if refused := next((name for name in _NOT_DONE if name in found), None):
        raise RequestRefused("PH-0498 this server does not do that", where=f"{where}: parameters", got=refused)
    return found


def _shape(found: Any, where: str) -> tuple[int, ...]:
    if not isinstance(found, list) or not all(type(size) is int and size > 0 for size in found):
        raise RequestRefused("PH-0495 its shape is not a list of sizes", where=where, want="[1, 16], say")
    if len(found) > MAX_RANK:
        raise RequestRefused(
            "PH-0496 its shape is too long", where=where, got=str(len(found)), want=f"at most {MAX_RANK}"
        )
    return tuple(found)


def _size(found: Any, where: str) -> int:
    """A number of bytes, also as text."""
    text = str(found) if type(found) in (int, str) else ""
    if not (text.isascii() and text.isdigit() and len(text) < 16):
        raise RequestRefused("PH-0494 is no number of bytes", where=where)
    return int(text)


def _flag(parameters: Mapping[str, Any], name: str, otherwise: bool, where: str) -> bool:
    found = parameters.get(name, otherwise)
    if not isinstance(found, bool):
        raise RequestRefused("PH-0493 is neither true nor false", where=f"{where}: {name}")
    return found
