"""Asks a server the golden cases of its own release over the Open Inference Protocol, as any client would.

`python -m packhouse.serving.oip_client` in a container writes the outputs to stdout as safetensors, each as
`<place of the case>.<output>`; the canary outside judges them.
"""

from __future__ import annotations

import http.client
import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from email.message import Message
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from packhouse.errors import ReleaseInvalid, Unavailable, squeezed
from packhouse.formats.arrays import Array
from packhouse.formats.runtime import as_text
from packhouse.parity.judge import Case
from packhouse.parity.replay import golden_cases
from packhouse.release.manifest import GOLDEN, MANIFEST, Manifest, load
from packhouse.serving.datatypes import Datatype
from packhouse.serving.healthcheck import UnixConnection
from packhouse.serving.protocol import HEADER
from packhouse.serving.tensors import from_binary, to_binary

READY_S, ANSWER_S, PAUSE_S = 120.0, 120.0, 0.05


class Server:
    """One server. uds: the path of its socket; empty: 127.0.0.1 and `port`. alive: whether it still runs, where
    somebody knows."""

    def __init__(self, *, uds: str = "", port: int = 8080, alive: Callable[[], bool] = lambda: True) -> None:
        self._uds, self._port, self._alive = uds, port, alive

    def wait(self, seconds: float = READY_S) -> None:
        """Until it is ready. Raises ReleaseInvalid: it says that it never will be. Unavailable: not in this time."""
        deadline = time.monotonic() + seconds
        words = "it does not listen"
        while time.monotonic() < deadline and self._alive():
            try:
                status, body, _ = self._ask("GET", "/ready")
            except (OSError, http.client.HTTPException):
                time.sleep(PAUSE_S)
                continue
            if status == 200:
                return
            said = json.loads(body)
            words = str(said.get("reason") or said.get("status"))
            if said.get("status") == "refused":
                raise ReleaseInvalid(f"PH-0464 the server refuses the release: {words}", where="/ready")
            time.sleep(PAUSE_S)
        raise Unavailable("PH-0463 did not become ready", where="server", got=words, want=f"{seconds:.0f} s")

    def answers(self, manifest: Manifest, cases: Sequence[Case]) -> list[dict[str, Array]]:
        """Raises ReleaseInvalid: it does not answer as the protocol says."""
        model = manifest.model
        status, body, _ = self._ask("GET", f"/v2/models/{model}")
        if status != 200:
            raise ReleaseInvalid("PH-0461 the server does not know its model", where=model, got=f"{status}")
        inputs = {entry["name"]: Datatype(entry["datatype"]) for entry in json.loads(body)["inputs"]}
        try:
            asked = [replace(case, inputs=as_text(case.inputs, manifest.text)) for case in cases]
            return [self._answer(model, case, inputs) for case in asked]
        except (ValueError, LookupError, TypeError) as error:
            raise ReleaseInvalid(
                "PH-0462 the server's answer is none of the protocol", where=model, got=squeezed(error)
            ) from error

    def _answer(self, model: str, case: Case, inputs: Mapping[str, Datatype]) -> dict[str, Array]:
        entries, tail = [], b""
        for name, datatype in inputs.items():
            array = case.inputs[name]
            data = to_binary(array)
            entries.append(
                {
                    "name": name,
                    "datatype": datatype.value,
                    "shape": list(array.shape),
                    "parameters": {"binary_data_size": len(data)},
                }
            )
            tail += data
        head = json.dumps({"inputs": entries, "parameters": {"binary_data_output": True}}).encode()
        status, body, headers = self._ask("POST", f"/v2/models/{model}/infer", head + tail, {HEADER: str(len(head))})
        if status != 200:
            raise ReleaseInvalid(
                "PH-0460 the server does not answer", where=case.name, got=squeezed(body.decode(errors="replace"))
            )
        size = int(headers.get(HEADER, len(body)))
        rest, answer = memoryview(body)[size:], {}
        for entry in json.loads(body[:size])["outputs"]:
            datatype, shape = Datatype(entry["datatype"]), tuple(entry["shape"])
            taken = int(entry["parameters"]["binary_data_size"])
            answer[str(entry["name"])] = _own(from_binary(rest[:taken], datatype, shape, case.name), prod(shape))
            rest = rest[taken:]
        return answer

    def _ask(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, bytes, Message]:
        connection = (
            UnixConnection(self._uds, ANSWER_S)
            if self._uds
            else http.client.HTTPConnection("127.0.0.1", self._port, timeout=ANSWER_S)
        )
        try:
            connection.request(method, path, body, dict(headers or {}))
            answer = connection.getresponse()
            return answer.status, answer.read(), answer.headers
        finally:
            connection.close()


def _own(array: Array, size: int) -> Array:
    assert array.size == size
    return np.array(array)


def main() -> int:
    folder = Path(os.environ.get("MODEL_DIR") or "/models")
    manifest = load(Manifest, (folder / MANIFEST).read_bytes(), where=MANIFEST)
    server = Server(port=int(os.environ.get("PORT") or 8080))
    server.wait()
    found: dict[str, Any] = {}
    for place, answer in enumerate(server.answers(manifest, golden_cases(folder / GOLDEN))):
        found |= {f"{place}.{name}": array for name, array in answer.items()}
    sys.stdout.buffer.write(safetensors.numpy.save(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
