"""Tensors on the wire: what goes in comes out, and text goes through a real model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnx import TensorProto, helper

from packhouse.serving.datatypes import Datatype, datatype_of
from packhouse.serving.errors import RequestRefused
from packhouse.serving.responses import dump
from packhouse.serving.tensors import from_binary, from_json, to_binary, to_json
from packhouse.spec.model import Format
from tests.packhouse.serving.conftest import serve
from tests.support import served_models
from tests.support.served_releases import asked, write

NUMBERS = [datatype for datatype in Datatype if datatype is not Datatype.BYTES]
ARRAYS = st.sampled_from(NUMBERS).flatmap(
    lambda datatype: hnp.arrays(datatype.dtype, hnp.array_shapes(min_dims=0, max_dims=4, max_side=4))
)


@given(ARRAYS)
def test_binary_data_comes_back_to_the_bit(array):
    again = from_binary(memoryview(to_binary(array)), datatype_of(array), array.shape, "x")
    assert (again.dtype, again.tobytes()) == (array.dtype, array.tobytes())


@given(ARRAYS)
def test_json_comes_back_to_the_bit_where_it_has_the_numbers(array):
    datatype = datatype_of(array)
    document = json.loads(dump(to_json(array)))
    if datatype.floating and not np.isfinite(array).all():
        again = np.array(document, str).astype(datatype.dtype)
        np.testing.assert_array_equal(again, array)
    else:
        again = from_json(document, datatype, "x")
        assert (again.shape, again.tobytes()) == (array.shape, array.tobytes())


@given(st.lists(st.text(max_size=8), min_size=1, max_size=5))
def test_text_comes_back(texts):
    array = np.array(texts, object)
    again = from_binary(memoryview(to_binary(array)), Datatype.BYTES, array.shape, "x")
    assert again.tolist() == texts
    assert from_json(to_json(array), Datatype.BYTES, "x").tolist() == texts


@given(st.binary(max_size=20))
def test_bytes_that_are_no_texts_are_refused(data):
    try:
        found = from_binary(memoryview(data), Datatype.BYTES, (2,), "x")
    except RequestRefused:
        return
    assert to_binary(found) == data


def text_model() -> bytes:
    """code: 1 for yes, 2 for no, else 0. same: the text again."""
    return served_models.model(
        [
            helper.make_node(
                "LabelEncoder",
                ["word"],
                ["code"],
                domain="ai.onnx.ml",
                keys_strings=["yes", "no"],
                values_int64s=[1, 2],
                default_int64=0,
            ),
            helper.make_node("Identity", ["word"], ["same"]),
        ],
        {"word": (TensorProto.STRING, ["batch"])},
        {"code": (TensorProto.INT64, ["batch"]), "same": (TensorProto.STRING, ["batch"])},
    )


TEXT = """
[axes.batch]
max = 8
[[inputs]]
name = "word"
dtype = "int64"
shape = ["batch"]
[[outputs]]
name = "code"
dtype = "int64"
shape = ["batch"]
[[outputs]]
name = "same"
dtype = "int64"
shape = ["batch"]
"""
"""package.toml has no text yet: the session's own type counts."""


def text_release(folder: Path) -> None:
    """Golden cases have no text yet either: those of another model, not to be replayed."""
    matrix = folder.with_name("matrix")
    served_models.matrix(matrix)
    stand_in = asked((matrix / "model.onnx").read_bytes(), {"x": np.zeros((1, 64), np.float32)})
    write(
        folder,
        served_models.spec("text", TEXT),
        {Format.ONNX: text_model()},
        [stand_in],
        outputs=["code", "same"],
        model="text",
    )


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.server
def test_text_goes_through_a_real_model(tmp_path, binary):
    folder, words = tmp_path / "release", ["no", "yes", "grüß"]
    text_release(folder)
    entry = {"name": "word", "datatype": "BYTES", "shape": [3]}
    blob = to_binary(np.array(words, object)) if binary else b""
    entry |= {"parameters": {"binary_data_size": len(blob)}} if binary else {"data": words}
    head = json.dumps({"inputs": [entry]}).encode()
    with serve(folder, tmp_path / "log", PACKHOUSE_GOLDEN="false") as server:
        reply = server.ask("/v2/models/text/infer", head + blob, Inference_Header_Content_Length=str(len(head)))
        code, same = reply.json["outputs"]
        assert (code["data"], same["data"], same["datatype"]) == ([2, 1, 0], words, "BYTES")
        reply = server.ask("/predict", {"rows": [{"word": 7}]})
        assert "word: holds what BYTES has not; got integers, want text" in reply.json["error"]
