"""Small ONNX files that no training made: each for a property of the server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from packhouse.formats.arrays import Array
from packhouse.parity.judge import Case
from packhouse.release.manifest import Manifest
from packhouse.spec.model import Format
from tests.support.served_releases import asked, write

FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL

SPEC = """schema = 1
[model]
name = "{name}"
[architecture]
name = "test"
[weights]
file = "weights.safetensors"
sha256 = "{nothing}"
size = 1
[samples]
file = "samples.safetensors"
sha256 = "{nothing}"
size = 1
"""


def spec(name: str, more: str) -> bytes:
    return (SPEC.format(name=name, nothing="0" * 64) + more).encode()


def model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, tuple[int, Sequence[int | str]]],
    outputs: Mapping[str, tuple[int, Sequence[int | str]]],
    weights: Mapping[str, Array] | None = None,
) -> bytes:
    graph = helper.make_graph(
        list(nodes),
        "test",
        [helper.make_tensor_value_info(name, kind, list(shape)) for name, (kind, shape) in inputs.items()],
        [helper.make_tensor_value_info(name, kind, list(shape)) for name, (kind, shape) in outputs.items()],
        [numpy_helper.from_array(array, name) for name, array in (weights or {}).items()],
    )
    made = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 20), helper.make_opsetid("ai.onnx.ml", 4)], ir_version=10
    )
    onnx.checker.check_model(made)
    return made.SerializeToString()


MIXED = """
[axes.batch]
max = 4
[axes.time]
min = 2
max = 6
[[inputs]]
name = "tokens"
dtype = "int64"
shape = ["batch", "time"]
range = [0, 9]
[[inputs]]
name = "mask"
dtype = "bool"
shape = ["batch", "time"]
[[inputs]]
name = "free"
dtype = "int64"
shape = ["batch"]
[[outputs]]
name = "odd"
shape = ["batch", "time"]
[[outputs]]
name = "picked"
shape = ["batch"]
"""
WORDS = np.array([1.0, 0.0, -1.0, 2.5], np.float32)


def mixed(folder: Path) -> Manifest:
    """odd: log(tokens) where mask, else 0: -infinity for 0. picked: the words[free]-th, which has no declared range."""
    data = model(
        [
            helper.make_node("Cast", ["tokens"], ["t"], to=FLOAT),
            helper.make_node("Log", ["t"], ["log"]),
            helper.make_node("Where", ["mask", "log", "zero"], ["odd"]),
            helper.make_node("Gather", ["words", "free"], ["picked"]),
        ],
        {"tokens": (INT64, ["batch", "time"]), "mask": (BOOL, ["batch", "time"]), "free": (INT64, ["batch"])},
        {"odd": (FLOAT, ["batch", "time"]), "picked": (FLOAT, ["batch"])},
        {"zero": np.float32(0).reshape(1), "words": WORDS},
    )
    tokens = np.arange(1, 7).reshape(2, 3)
    inputs = {"tokens": tokens, "mask": tokens % 2 == 0, "free": np.array([0, 3])}
    names = ["odd", "picked"]
    cases = [asked(data, inputs, "batch 2")]
    return write(folder, spec("mixed", MIXED), {Format.ONNX: data}, cases, outputs=names, model="mixed")


ROWS = """
[axes.batch]
max = {most}
[[inputs]]
name = "x"
shape = ["batch", {width}]
[[outputs]]
name = "y"
shape = ["batch", {width}]
"""


def matrix(folder: Path, *, width: int = 64, layers: int = 1, most: int = 64, centred: bool = False) -> Manifest:
    """y = x @ w, layers times. centred: of x minus its mean over the batch, so that rows see each other."""
    random = np.random.default_rng(0)
    weights = {"w": (random.normal(size=(width, width)) / width**0.5).astype(np.float32)}
    nodes, last = [], "x"
    if centred:
        weights["axes"] = np.array([0])
        nodes += [
            helper.make_node("ReduceMean", ["x", "axes"], ["mean"], keepdims=1),
            helper.make_node("Sub", ["x", "mean"], ["own"]),
        ]
        last = "own"
    for layer in range(layers):
        made = "y" if layer == layers - 1 else f"h{layer}"
        nodes.append(helper.make_node("MatMul", [last, "w"], [made]))
        last = made
    shape: tuple[int, list[int | str]] = (FLOAT, ["batch", width])
    data = model(nodes, {"x": shape}, {"y": shape}, weights)
    cases: list[Case] = []
    for rows, scale in ((1, 1), (3, 1), (2, 100)):
        given = (scale * random.normal(size=(rows, width))).astype(np.float32)
        cases.append(asked(data, {"x": given}, f"batch {rows} times {scale}"))
    text = spec("matrix", ROWS.format(most=most, width=width))
    return write(folder, text, {Format.ONNX: data}, cases, outputs=["y"], model="matrix")
