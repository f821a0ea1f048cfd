"""The Open Inference Protocol and /predict: answers are ONNX Runtime's own, to the bit."""

from __future__ import annotations

import json
import struct

import numpy as np
import onnxruntime
import pytest

MIXED = {
    "tokens": ("INT64", np.array([[1, 2, 0], [3, 9, 5]])),
    "mask": ("BOOL", np.array([[True, False, True], [True, True, False]])),
    "free": ("INT64", np.array([2, 3])),
}


def entries(given=MIXED, *, binary: bool = False, flat: bool = False):
    found, blobs = [], []
    for name, (datatype, array) in given.items():
        entry = {"name": name, "datatype": datatype, "shape": list(array.shape)}
        if binary:
            blobs.append(array.tobytes())
            entry["parameters"] = {"binary_data_size": len(blobs[-1])}
        else:
            entry["data"] = (array.ravel() if flat else array).tolist()
        found.append(entry)
    return found, b"".join(blobs)


def direct(folder, inputs):
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"))
    return dict(zip([output.name for output in session.get_outputs()], session.run(None, inputs), strict=True))


def test_an_answer_is_that_of_onnxruntime_to_the_bit(linear, release):
    x = np.random.default_rng(1).normal(size=(5, 16)).astype(np.float32)
    (want,) = direct(release.folder, {"x": x}).values()
    path, tensor = "/v2/models/linear/infer", {"name": "x", "datatype": "FP32", "shape": [5, 16]}
    for data in (x.tolist(), x.ravel().tolist()):
        reply = linear.ask(path, {"id": "7", "inputs": [tensor | {"data": data}]})
        assert reply.status == 200
        (output,) = reply.json["outputs"]
        assert (output["name"], output["datatype"], output["shape"]) == ("y", "FP32", [5, 4])
        assert np.array(output["data"], np.float32).tobytes() == want.tobytes()
        assert (reply.json["id"], reply.json["model_name"], reply.json["model_version"]) == (
            "7",
            "linear",
            release.release,
        )
    for body in ({"rows": x.tolist()}, {"rows": [{"x": row} for row in x.tolist()]}, {"inputs": {"x": x.tolist()}}):
        reply = linear.ask("/predict", body)
        assert np.array(reply.json["outputs"]["y"], np.float32).tobytes() == want.tobytes()


def test_binary_tensors_go_in_and_come_out_as_they_are(linear, release):
    x = np.random.default_rng(2).normal(size=(3, 16)).astype(np.float32)
    (want,) = direct(release.folder, {"x": x}).values()
    for padding in range(4):  # the tensor begins at any place
        inputs, blob = entries({"x": ("FP32", x)}, binary=True)
        head = json.dumps({"inputs": inputs, "parameters": {"binary_data_output": True}}).encode() + b" " * padding
        reply = linear.ask(
            f"/v2/models/linear/versions/{release.release}/infer",
            head + blob,
            Content_Type="application/octet-stream",
            Inference_Header_Content_Length=str(len(head)),
        )
        assert reply.status == 200
        size = int(reply.headers["inference-header-content-length"])
        (output,) = json.loads(reply.body[:size])["outputs"]
        assert output["parameters"] == {"binary_data_size": want.nbytes}
        assert reply.body[size:] == want.tobytes()


def test_outputs_are_chosen_by_the_request_each_in_its_own_form(mixed):
    inputs, blob = entries(binary=True)
    head = json.dumps(
        {"inputs": inputs, "outputs": [{"name": "picked", "parameters": {"binary_data": True}}, {"name": "odd"}]}
    ).encode()
    reply = mixed.ask("/v2/models/mixed/infer", head + blob, Inference_Header_Content_Length=str(len(head)))
    size = int(reply.headers["inference-header-content-length"])
    picked, odd = json.loads(reply.body[:size])["outputs"]
    assert (picked["name"], odd["name"]) == ("picked", "odd")
    assert struct.unpack("<2f", reply.body[size:]) == (-1.0, 2.5)
    assert len(odd["data"]) == 6


def test_what_json_has_no_number_for_is_spelled(mixed):
    for flat in (True, False):
        inputs, _ = entries(flat=flat)
        reply = mixed.ask("/v2/models/mixed/infer", {"inputs": inputs})
        odd = reply.json["outputs"][0]["data"]
        assert odd[2] == "-Infinity"
        assert np.array([float(value) for value in odd], np.float32)[4] == np.log(np.float32(9))


def test_metadata_and_health_are_the_protocol_s(mixed, linear, release):
    assert linear.ask("/v2").json["extensions"] == ["binary_tensor_data"]
    assert linear.ask("/v2/health/live").json == {"live": True}
    assert linear.ask("/v2/health/ready").json == {"ready": True}
    under = f"/v2/models/linear/versions/{release.release}"
    assert linear.ask(f"{under}/ready").status == 200
    assert linear.ask(under).json == linear.ask("/v2/models/linear").json
    found = mixed.ask("/v2/models/mixed").json
    assert found["platform"] == "onnxruntime_onnx"
    assert found["inputs"][:2] == [
        {"name": "tokens", "datatype": "INT64", "shape": [-1, -1]},
        {"name": "mask", "datatype": "BOOL", "shape": [-1, -1]},
    ]


def test_the_api_is_described_for_this_very_model(mixed):
    document = mixed.ask("/openapi.json").json
    body = document["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    tokens = body["anyOf"][0]["properties"]["inputs"]["properties"]["tokens"]
    assert tokens["items"]["items"] == {"type": "integer", "minimum": 0, "maximum": 9}


def test_metrics_count_requests_runs_and_name_the_release(linear, release):
    linear.ask("/predict", {"rows": [[0.0] * 16] * 3})
    linear.ask("/predict", {"rows": []})
    text = linear.ask("/metrics").body.decode()
    assert f'release="{release.release}"' in text
    for name in (
        'packhouse_requests_total{route="/predict",status="200"}',
        'packhouse_requests_total{route="/predict",status="400"}',
        'packhouse_request_seconds_bucket{le="0.001",route="/predict"}',
        'packhouse_run_rows_bucket{le="4.0"}',
        "packhouse_queue_depth 0.0",
        "packhouse_ready 1.0",
        "process_resident_memory_bytes",
    ):
        assert name in text, name


def test_the_log_has_a_line_a_request_with_its_id_and_never_its_values(linear):
    secret = 271828.1828
    reply = linear.ask("/predict", {"rows": [[secret] * 15]}, X_Request_Id="mine-1")
    assert (reply.status, reply.headers["x-request-id"]) == (400, "mine-1")
    linear.ask("/predict", {"rows": [[secret] * 16]}, X_Request_Id="not {plain}")
    (line,) = [event for event in linear.events() if event.get("request") == "mine-1"]
    assert (line["event"], line["route"], line["status"]) == ("request", "/predict", 400)
    assert line["refused"] == "has another size"
    text = linear.log.read_text()
    assert "271828" not in text
    assert "plain}" not in text


@pytest.mark.parametrize("path", ["/health", "/ready"])
def test_health_and_ready_say_what_is_served(linear, release, path):
    found = linear.ask(path).json
    assert (found["model"], found["release"], found["format"]) == ("linear", release.release, "onnx")
