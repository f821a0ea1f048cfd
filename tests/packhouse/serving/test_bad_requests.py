"""Bad requests: each its status and its words; whatever comes, never a 500."""

from __future__ import annotations

import json
import socket
from urllib.parse import urlsplit

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

INFER = "/v2/models/mixed/infer"
GOOD = {"tokens": [[1, 2]], "mask": [[True, False]], "free": [0]}


def inputs(**changes):
    """The good inputs of /predict, changed; None leaves one out."""
    return {"inputs": {name: data for name, data in (GOOD | changes).items() if data is not None}}


def tensors(**changes):
    """A good request of the protocol whose first tensor is changed."""
    first = {"name": "tokens", "datatype": "INT64", "shape": [1, 2], "data": [1, 2]} | changes
    return {
        "inputs": [
            {name: value for name, value in first.items() if value is not None},
            {"name": "mask", "datatype": "BOOL", "shape": [1, 2], "data": [True, False]},
            {"name": "free", "datatype": "INT64", "shape": [1], "data": [0]},
        ]
    }


PREDICT = [
    (inputs(mask=None), 400, "mask: input is missing; want tokens, mask, free"),
    (inputs(other=[1]), 400, "inputs: the model has no such input; got other"),
    (inputs(tokens=[[1.5, 2]]), 400, "tokens: holds what INT64 has not; got fractions, want integers"),
    (inputs(tokens=[[True, 2]]), 400, "got true or false, want integers"),
    (inputs(tokens=[["1", 2]]), 400, "got text, want integers"),
    (inputs(tokens=[[None, 2]]), 400, "got null, want integers"),
    (inputs(tokens=[[{}, 2]]), 400, "got objects, want integers"),
    (inputs(tokens=[[2**63, 2]]), 400, "tokens: holds integers that INT64 has not"),
    (inputs(mask=[[1, 0]]), 400, "mask: holds what BOOL has not; got integers, want true or false"),
    (inputs(tokens=[[1, 2], [3]]), 400, "tokens: its lists are not of one length and depth"),
    (inputs(tokens=[[1, [2]]]), 400, "tokens: holds what INT64 has not; got lists"),
    (inputs(tokens=[1, 2]), 400, "tokens: has another number of axes; got shape [2], want shape [batch, time]"),
    (inputs(tokens=7), 400, "tokens: has another number of axes; got shape []"),
    (inputs(tokens=[]), 400, "tokens: has another number of axes"),
    (inputs(tokens=[[1]], mask=[[True]]), 400, "tokens: axis 1, 'time': is outside of its axis; got 1, want 2 to 6"),
    (inputs(tokens=[[1, 2]] * 5), 400, "tokens: axis 0, 'batch': is outside of its axis; got 5, want 1 to 4"),
    (inputs(mask=[[True] * 3]), 400, "mask: axis 1, 'time': differs from the same axis of an input before; got 3"),
    (inputs(tokens=[[1, 10]]), 400, "tokens: is outside of its range; got 1 to 10, want 0 to 9"),
    (inputs(free=[4]), 400, "the model does not take these values"),
    ({"rows": [1, 2]}, 400, "rows[0]: rows of a model with several inputs are objects"),
    ({"rows": []}, 400, "rows: is not a list of rows"),
    ({"rows": [{"tokens": [1, 2]}]}, 400, "rows[0]: mask: has no value"),
    ({"rows": [{**{k: v[0] for k, v in GOOD.items()}, "more": 1}]}, 400, "rows[0]: unknown key; got more"),
    ({"rows": [], "inputs": {}}, 400, "holds neither or both"),
    ({}, 400, "holds neither or both"),
    ({"row": []}, 400, "unknown key; got row, want inputs, rows"),
    ({"inputs": [1]}, 400, "inputs: is not an object of tensors by name"),
    (b"[1]", 400, "the body is not a JSON object"),
    (b"", 400, "the body is not JSON"),
    (b'{"inputs": {"free": [NaN]}}', 400, "the body is not JSON"),
    (b'{"inputs": {"free": [1e999]}}', 400, "the body is not JSON"),
    (b'{"inputs": "\xff"}', 400, "the body is not JSON"),
    (b'{"inputs": ' + b"[" * 2000 + b"]" * 2000 + b"}", 400, "the body is not JSON; got depth limit exceeded"),
    (b'{"inputs": {"free": ' + b"[" * 900 + b"]" * 900 + b"}}", 400, "free: nested too deep; want at most 32"),
    (b" " * 20_001, 400, "too much JSON; got 20,001 bytes, want at most 20,000"),
]


@pytest.mark.parametrize(("body", "status", "words"), PREDICT)
def test_predict_says_what_is_wrong_where(mixed, body, status, words):
    reply = mixed.ask("/predict", body)
    assert (reply.status, list(reply.json)) == (status, ["error"])
    assert words in reply.json["error"]


PROTOCOL = [
    (tensors(datatype="FP32"), "inputs[0]: tokens: has another datatype; got FP32, want INT64"),
    (tensors(name="nobody"), "inputs[0]: the model has no such input; got nobody"),
    (tensors(name="mask", datatype="BOOL", data=[True, True]), "inputs[1]: mask: stands there twice"),
    (tensors(shape=[2, 2]), "inputs[0]: tokens: data does not fit the shape; got shape [2], want shape [2, 2]"),
    (tensors(shape=[1, -2]), "inputs[0]: tokens: its shape is not a list of sizes"),
    (tensors(shape=[0] * 100, data=[]), "its shape is not a list of sizes"),
    (tensors(shape=[1] * 100), "its shape is too long"),
    (tensors(shape=[2**62, 2**62]), "data does not fit the shape"),
    (tensors(shape=None), "its shape is not a list of sizes"),
    (tensors(data=None), "inputs[0]: tokens: has no data"),
    (tensors(data=[[1], [2]]), "data does not fit the shape; got shape [2, 1], want shape [1, 2]"),
    (tensors(parameters={"binary_data_size": 16}), "has data twice"),
    (tensors(data=None, parameters={"binary_data_size": 16}), "more binary data than there is; got 16, want 0"),
    (tensors(data=None, parameters={"binary_data_size": -1}), "binary_data_size: is no number of bytes"),
    (tensors(parameters=[]), "parameters: is not an object"),
    (
        tensors() | {"outputs": [{"name": "none"}]},
        "outputs[0]: the model has no such output; got none, want odd, picked",
    ),
    (tensors() | {"outputs": {"name": "odd"}}, "outputs: is not a list of tensors"),
    (tensors() | {"parameters": {"binary_data_output": 1}}, "binary_data_output: is neither true nor false"),
    (tensors() | {"outputs": [{"name": "odd", "parameters": {"classification": 3}}]}, "this server does not do that"),
    (tensors() | {"id": 7}, "id: is no text, or too long"),
    ({"inputs": [7]}, "inputs: is not a list of tensors"),
    ({}, "inputs: is not a list of tensors"),
]


@pytest.mark.parametrize(("body", "words"), PROTOCOL)
def test_the_protocol_says_what_is_wrong_where(mixed, body, words):
    reply = mixed.ask(INFER, body)
    assert (reply.status, list(reply.json)) == (400, ["error"])
    assert words in reply.json["error"]


@pytest.mark.parametrize(
    ("head", "tail", "size", "words"),
    [
        (tensors(), b"more", None, "there is binary data that no input claims; got 4 bytes"),
        (tensors(), b"", "99999", "header Inference-Header-Content-Length: longer than the body"),
        (tensors(), b"", "-1", "header Inference-Header-Content-Length: is no number of bytes"),
        (tensors(data=None, parameters={"binary_data_size": 15}), b"0" * 15, None, "got 15 bytes, want shape [1, 2]"),
        (
            {"inputs": [{"name": "mask", "datatype": "BOOL", "shape": [2], "parameters": {"binary_data_size": 2}}]},
            b"\1\2",
            None,
            "holds bytes that are no BOOL",
        ),
    ],
)
def test_binary_data_that_does_not_fit_is_refused(mixed, head, tail, size, words):
    text = json.dumps(head).encode()
    reply = mixed.ask(INFER, text + tail, Inference_Header_Content_Length=size or str(len(text)))
    assert reply.status == 400
    assert words in reply.json["error"]


def test_infinite_and_too_large_numbers_are_refused_where_floats_are_wanted(linear):
    row = [0.0] * 15
    for number in (1e39, -1e300):
        reply = linear.ask("/predict", {"rows": [[*row, number]]})
        assert (reply.status, "x: holds NaN, infinity" in reply.json["error"]) == (400, True)
    blob = b"\0" * 60 + b"\0\0\xc0\x7f"
    head = json.dumps(
        {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 16], "parameters": {"binary_data_size": 64}}]}
    ).encode()
    reply = linear.ask("/v2/models/linear/infer", head + blob, Inference_Header_Content_Length=str(len(head)))
    assert (reply.status, "x: holds NaN, infinity" in reply.json["error"]) == (400, True)


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("/v2/models/other/infer", 404, "no such model here; got other, want mixed"),
        ("/v2/models/mixed/versions/7/infer", 404, "no such version here; got 7"),
        ("/nowhere", 404, "not found"),
        ("/health", 405, "method not allowed"),
    ],
)
def test_unknown_places_are_named(mixed, path, status, words):
    reply = mixed.ask(path, {})
    assert reply.status == status
    assert words in reply.json["error"]


def test_content_that_is_not_read_is_named(mixed):
    assert mixed.ask("/predict", {}, Content_Type="text/csv").status == 415
    assert mixed.ask(INFER, b"", Content_Encoding="gzip").status == 415


def test_the_runtime_says_nothing_of_a_client_s_values_in_the_log(mixed):
    assert mixed.ask("/predict", inputs(free=[1717])).status == 400
    assert "1717" not in mixed.log.read_text()
    assert all(event["event"] for event in mixed.events())


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["name", "datatype", "shape", "data", "parameters", "inputs", "rows", "tokens", "free"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)
ENTRY = st.fixed_dictionaries(
    {},
    optional={
        "name": st.sampled_from(["tokens", "mask", "free", "x"]) | PLAIN,
        "datatype": st.sampled_from(["INT64", "BOOL", "FP32", "BYTES"]) | PLAIN,
        "shape": st.lists(st.integers(-1, 4), max_size=3) | PLAIN,
        "data": st.lists(st.integers(0, 9), max_size=8) | PLAIN,
        "parameters": st.fixed_dictionaries({}, optional={"binary_data_size": st.integers(0, 40) | PLAIN}) | PLAIN,
    },
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    document=PLAIN
    | st.fixed_dictionaries({"inputs": st.lists(ENTRY, max_size=4) | st.dictionaries(st.text(max_size=3), PLAIN)})
    | st.fixed_dictionaries({"rows": st.lists(PLAIN, max_size=3)}),
    tail=st.binary(max_size=40),
)
def test_random_json_is_never_an_error_of_the_server(mixed, document, tail):
    text = json.dumps(document).encode()
    for reply in (
        mixed.ask("/predict", text),
        mixed.ask(INFER, text + tail, Inference_Header_Content_Length=str(len(text))),
    ):
        assert reply.status in (200, 400), reply.body


def test_a_body_that_is_no_http_closes_the_connection_and_the_server_goes_on(mixed):
    place = urlsplit(mixed.url)
    with socket.create_connection((place.hostname, place.port), timeout=10) as raw:
        raw.sendall(b"\x16\x03\x01 not http\r\n\r\n")
        assert raw.recv(100).startswith(b"HTTP/1.1 400")
    assert mixed.ask("/ready").status == 200
