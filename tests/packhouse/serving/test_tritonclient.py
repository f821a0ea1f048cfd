"""A published client of the Open Inference Protocol against the server: NVIDIA's, which is none of our own words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, closing
from urllib.parse import urlsplit

import numpy as np
import onnxruntime
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from packhouse import __version__
from tests.packhouse.serving.conftest import Running, serve
from tests.packhouse.serving.test_tensors import text_release
from tests.support.small_release import Small


@pytest.fixture
def client(linear: Running) -> Iterator[triton.InferenceServerClient]:
    with connected(linear) as made:
        yield made


def connected(server: Running) -> AbstractContextManager[triton.InferenceServerClient]:
    return closing(triton.InferenceServerClient(urlsplit(server.url).netloc))


def sent(name: str, array: np.ndarray, *, binary: bool) -> triton.InferInput:
    made = triton.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
    made.set_data_from_numpy(array, binary_data=binary)
    return made


def wanted(*names: str, binary: bool) -> list[triton.InferRequestedOutput]:
    return [triton.InferRequestedOutput(name, binary_data=binary) for name in names]


def test_it_finds_the_server_and_the_model_ready_and_described(client, release: Small):
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("linear")
    assert client.is_model_ready("linear", release.release)
    assert not client.is_model_ready("linear", "another")
    server = client.get_server_metadata()
    assert (server["name"], server["version"]) == ("packhouse", __version__)
    assert "binary_tensor_data" in server["extensions"]
    model = client.get_model_metadata("linear")
    assert (model["name"], model["versions"]) == ("linear", [release.release])
    assert model["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 16]}]
    assert model["outputs"] == [{"name": "y", "datatype": "FP32", "shape": [-1, 4]}]


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False])
def test_by_json_and_by_binary_it_gets_onnxruntimes_own_answer_to_the_bit(
    client, release: Small, binary_in, binary_out
):
    x = np.random.default_rng(11).normal(size=(5, 16)).astype(np.float32)
    session = onnxruntime.InferenceSession(str(release.folder / "model.onnx"))
    (want,) = session.run(None, {"x": x})
    asked = {"outputs": wanted("y", binary=binary_out), "request_id": "7", "model_version": release.release}
    answer = client.infer("linear", [sent("x", x, binary=binary_in)], **asked)
    got = answer.as_numpy("y")
    assert (got.dtype, got.shape) == (want.dtype, want.shape)
    assert got.tobytes() == want.tobytes()
    about = answer.get_response()
    assert (about["id"], about["model_name"], about["model_version"]) == ("7", "linear", release.release)


def test_without_a_word_about_outputs_it_gets_all_of_them(client):
    answer = client.infer("linear", [sent("x", np.zeros((1, 16), np.float32), binary=True)])
    assert answer.as_numpy("y").shape == (1, 4)


def test_integers_booleans_and_several_outputs_are_the_same_by_json_and_by_binary(mixed: Running):
    given = {
        "tokens": np.array([[1, 2, 1], [3, 9, 5]]),
        "mask": np.array([[True, False, True], [True, True, False]]),
        "free": np.array([2, 3]),
    }
    answers = []
    with connected(mixed) as client:
        for binary in (True, False):
            inputs = [sent(name, array, binary=binary) for name, array in given.items()]
            answer = client.infer("mixed", inputs, outputs=wanted("odd", "picked", binary=binary))
            answers.append([answer.as_numpy(name) for name in ("odd", "picked")])
    for binary, plain in zip(*answers, strict=True):
        assert (binary.dtype, binary.shape) == (plain.dtype, plain.shape)
        assert binary.tobytes() == plain.tobytes()


@pytest.mark.server
def test_text_is_the_same_by_json_and_by_binary(tmp_path):
    words = np.array(["no", "yes", "grüß"], object)
    text_release(tmp_path / "release")
    with serve(tmp_path / "release", tmp_path / "log", PACKHOUSE_GOLDEN="false") as server, connected(server) as client:
        for binary in (True, False):
            answer = client.infer(
                "text", [sent("word", words, binary=binary)], outputs=wanted("code", "same", binary=binary)
            )
            assert answer.as_numpy("code").tolist() == [2, 1, 0]
            same = [each.decode() if isinstance(each, bytes) else each for each in answer.as_numpy("same")]
            assert same == words.tolist()


@pytest.mark.parametrize("compression", ["gzip", "deflate"])
def test_what_the_server_does_not_do_reaches_the_caller_as_words(client, compression):
    x = np.zeros((1, 16), np.float32)
    for ask, words in (
        (lambda: client.infer("linear", [sent("x", x[:, :3].copy(), binary=True)]), "x"),
        (lambda: client.infer("another", [sent("x", x, binary=True)]), "another"),
        (
            lambda: client.infer("linear", [sent("x", x, binary=True)], request_compression_algorithm=compression),
            compression,
        ),
        (lambda: client.get_model_config("linear"), "not found"),
    ):
        with pytest.raises(InferenceServerException) as caught:
            ask()
        assert words in caught.value.message()
        assert 400 <= int(caught.value.status()) < 500
