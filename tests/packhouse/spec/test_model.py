"""package.toml: what is right is read back as it was, what is wrong is named with its line and key."""

from __future__ import annotations

import re
import time
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import packhouse
from packhouse.errors import SpecInvalid
from packhouse.spec.model import MAX_SPEC_BYTES, Asked, Format, Labels, Spec, Want, checked, parse, render
from packhouse.spec.onnxruntimes import ORDER
from packhouse.spec.steps import Standard
from packhouse.spec.supported import check_supported
from packhouse.spec.types import DType
from packhouse.spec.versions import NEEDS

ROOT = Path(__file__).parents[3]

# The same model in both schemas. What is said of one counts for the other, unless a test says otherwise.
GOOD_1 = f"""\
schema = 1

[model]
name = "churn"

[architecture]
name = "examples.tabular"
arguments = {{ features = 3, classes = 2 }}

[axes]
batch = {{ min = 1, max = 64 }}

[[inputs]]
name = "x"
dtype = "float32"
shape = ["batch", 3]

[[inputs]]
name = "ids"
dtype = "int64"
shape = ["batch", 5]
range = [0, 99]

[[outputs]]
name = "logits"
shape = ["batch", 2]
scores = true

[weights]
file = "weights.safetensors"
sha256 = "{"a" * 64}"
size = 1234

[samples]
file = "samples.safetensors"
sha256 = "{"b" * 64}"
size = 99
labels = true

[preprocessing]
input = "x"
columns = ["a", "b", "c"]
mean = [1, 2.0, 3.0]
scale = [1.0, 0.5, 2.0]

[formats]
onnx = "required"
program = "off"

[gates]
max_ratio = 8.0
atol = 1e-4
rtol = 1e-3

[image]
repository = "registry.example:5000/models/churn"

[mlflow]
name = "churn model"
"""

GOOD = (
    GOOD_1.replace("schema = 1", "schema = 2")
    .replace("scores = true", 'kind = "scores"')
    .replace("labels = true", 'labels = "class"')
)

ONE_TABLE = GOOD[GOOD.index("[preprocessing]") : GOOD.index("[formats]")]
STEPS = """\
[[preprocessing]]
kind = "min-max"
input = "x"
data_min = [0, 1, 2]
data_max = [1, 1, 3]
feature_range = [-1, 1]
clip = true

[[preprocessing]]
kind = "one-hot"
input = "ids"
categories = ["a", "b"]
unknown = "zeros"

[[preprocessing]]
kind = "concatenate"
inputs = ["x", "ids"]

"""
WORDS = """\
[[preprocessing]]
kind = "vocabulary"
input = "ids"
values = [7, 5]
indices = [1, 0]
unknown = 2

"""
LISTED = GOOD.replace(ONE_TABLE, STEPS)
LOOKED_UP = GOOD.replace(ONE_TABLE, WORDS)

ONE_INPUT = GOOD[GOOD.index('[[inputs]]\nname = "ids"') : GOOD.index("[[outputs]]")]

# what is replaced, by what, the text on the line that must be named ("" for none), and what the message must say
BAD = {
    "unknown key at the top": ("[model]", 'colour = "red"\n[model]', "colour", "colour: unknown key"),
    "unknown section": ("[image]", "[docker]\nx = 1\n[image]", "[docker]", "docker: unknown key"),
    "unknown nested key": ("size = 99", 'size = 99\nsize_mb = "1"', "size_mb", "samples.size_mb: unknown key"),
    "a class path": ("[model]", '[model]\nclass_path = "os.system"', "class_path", "model.class_path: unknown key"),
    "a Hydra target": ("[model]", '[model]\n_target_ = "os.system"', "_target_", "model._target_: unknown key"),
    "text for a number": ("size = 1234", 'size = "1234"', 'size = "1234"', "weights.size: Input should be a valid int"),
    "a flag for a number": ("max = 64", "max = true", "batch =", "axes.batch.max: Input should be a valid integer"),
    "text in a list of numbers": ("[1, 2.0, 3.0]", '[1, "2", 3.0]', "mean", "preprocessing.mean[1]: Input should be"),
    "a date": ('name = "churn"\n', "name = 2020-01-01\n", "2020-01-01", "model.name: Input should be a valid string"),
    "a date among the arguments": ("features = 3", "features = 2020-01-01", "arguments", "architecture.arguments.feat"),
    "a table for text": ('name = "churn"\n', "name = { first = 1 }\n", "first", "model.name: Input should be a valid"),
    "missing section": (GOOD[GOOD.index("[weights]") : GOOD.index("[samples]")], "", "", "weights: missing"),
    "missing key": ("size = 99\n", "", "[samples]", "samples.size: missing"),
    "missing key of the second input": ('name = "ids"\n', "", "[[inputs]]@2", "inputs[1].name: missing"),
    "no inputs": (GOOD[GOOD.index("[[inputs]]") : GOOD.index("[[outputs]]")], "", "", "inputs: missing"),
    "bad model name": ('"churn"\n', '"Churn Model"\n', "Churn", "model.name: has another form; got 'Churn Model'"),
    "bad tensor name": ('name = "ids"', 'name = "9 ids"', "9 ids", "inputs[1].name: has another form"),
    "bad axis name": ("batch = {", '"b c" = {', '"b c"', "axes.b c: has another form"),
    "digest in upper case": ("a" * 64, "A" * 64, "A" * 64, "weights.sha256: has another form"),
    "digest too short": ("a" * 64, "a" * 63, "a" * 63, "want sha256: 64 lower-case hex digits"),
    "digest is md5": ("a" * 64, "d41d8cd98f00b204e9800998ecf8427e", "d41d", "weights.sha256: has another form"),
    "size of nothing": ("size = 1234", "size = 0", "size = 0", "weights.size: Input should be greater than or equal"),
    "size below nothing": ("size = 1234", "size = -1", "size = -1", "weights.size: Input should be greater than or"),
    "size beyond 63 bits": ("size = 1234", f"size = {2**63}", "size =", "weights.size: Input should be less than"),
    "axis upside down": (
        "min = 1, max = 64",
        "min = 65, max = 64",
        "batch =",
        "axes.batch.min: min 65 is above max 64",
    ),
    "axis not declared": ('["batch", 5]', '["batch", "time"]', '"time"', "inputs[1].shape: axis 'time' is used but"),
    "axis not used": (
        "[axes]",
        "[axes]\ntime = { max = 9 }",
        "time",
        "axes.time: axis 'time' is declared but no input ",
    ),
    "a shape that is neither": (
        '["batch", 5]',
        '["batch", 5.5]',
        "5.5",
        "inputs[1].shape[1]: neither a size nor the na",
    ),
    "duplicate input": ('name = "ids"', 'name = "x"', 'name = "x"@2', "inputs[1].name: 'x' is declared 2 times"),
    "unknown dtype": ('"int64"', '"bfloat16"', "bfloat16", "inputs[1].dtype: Input should be 'float32'"),
    "range upside down": ("range = [0, 99]", "range = [9, 0]", "range", "inputs[1].range: 9 is above 0"),
    "range to infinity": (
        "range = [0, 99]",
        "range = [0, inf]",
        "range",
        "inputs[1].range[1]: Input should be a finite",
    ),
    "scores of one number": (
        '["batch", 2]',
        '["batch"]',
        '["batch"]',
        "outputs[0].shape: scores need a last axis of cl",
    ),
    "scale of nothing": ("scale = [1.0,", "scale = [0.0,", "scale =", "preprocessing.scale: a scale of 0 in float32"),
    "scale that float32 has not": (
        "scale = [1.0,",
        "scale = [1e-46,",
        "scale =",
        "preprocessing.scale: a scale of 0 in",
    ),
    "mean that float32 has not": ("mean = [1,", "mean = [1e39,", "mean =", "float32 can not compute with"),
    "mean of another length": ("mean = [1, 2.0, 3.0]", "mean = [1, 2.0]", "scale =", "must have one entry per feature"),
    "mean that is no number": ("mean = [1,", "mean = [nan,", "mean", "preprocessing.mean[0]: Input should be a finite"),
    "scale that is infinite": (
        "scale = [1.0,",
        "scale = [inf,",
        "scale",
        "preprocessing.scale[0]: Input should be a f",
    ),
    "preprocessing of nobody": ('input = "x"', 'input = "z"', 'input = "z"', "preprocessing.input: 'z' is not among"),
    "preprocessing of integers": (
        'input = "x"',
        'input = "ids"',
        "mean",
        "input 'ids' must be float32 with a last axis",
    ),
    "atol without rtol": ("rtol = 1e-3\n", "", "atol", "gates.atol: set both atol and rtol, or neither"),
    "rtol without atol": ("atol = 1e-4\n", "", "rtol", "gates.rtol: set both atol and rtol, or neither"),
    "a tolerance that is no number": ("atol = 1e-4", "atol = nan", "atol", "gates.atol: Input should be"),
    "a ratio that is no number": (
        "max_ratio = 8.0",
        "max_ratio = nan",
        "max_ratio",
        "gates.max_ratio: Input should be",
    ),
    "a ratio below one": (
        "max_ratio = 8.0",
        "max_ratio = 0.5",
        "max_ratio",
        "gates.max_ratio: Input should be greater",
    ),
    "an old opset": ("[formats]", "[formats]\nopset = 7", "opset", "formats.opset: Input should be greater than or eq"),
    "an absurd opset": ("[formats]", "[formats]\nopset = 999", "opset", "formats.opset: Input should be less than or"),
    "an opset that its onnxruntime does not read": (
        "[formats]",
        '[formats]\nonnxruntime = "1.17"\nopset = 21',
        "opset",
        "formats.opset: 21 is above what onnxruntime 1.17 reads, which is 20",
    ),
    "an onnxruntime of nobody knows when": (
        "[formats]",
        '[formats]\nonnxruntime = "1.8"',
        "onnxruntime",
        "formats.onnxruntime: '1.8' is none of 1.16 to 1.32, written as major.minor",
    ),
    "an onnxruntime that is a number": (
        "[formats]",
        "[formats]\nonnxruntime = 1.2",
        "onnxruntime",
        "formats.onnxruntime: Input should be a valid string",
    ),
    "weights in bits that its onnxruntime lacks": (
        "[formats]",
        '[formats]\nonnxruntime = "1.21"\nint8_weights = 8',
        "int8_weights",
        "formats.int8_weights: onnxruntime 1.21 has no MatMulNBits of 8 bits",
    ),
    "a program that is no .pt2": (
        'name = "examples.tabular"\narguments = { features = 3, classes = 2 }',
        'name = "program"',
        'file = "weights.safetensors"',
        "weights.file: the architecture `program` is a .pt2",
    ),
    "a program with arguments": (
        'name = "examples.tabular"',
        'name = "program"',
        "arguments",
        "architecture.arguments: a program is what it is and takes no arguments",
    ),
    "an unknown want": (
        'onnx = "required"',
        'onnx = "maybe"',
        "maybe",
        "formats.onnx: Input should be 'required', 'opt",
    ),
    "INT8 without its base": (
        'onnx = "required"',
        'onnx = "off"\nonnx-int8 = "optional"',
        "onnx-int8",
        "formats.onnx-int8: onnx-int8 is measured against onnx, which is off",
    ),
    "INT8 by default without its base": ('onnx = "required"', 'onnx = "off"', 'onnx = "off"', "measured against onnx"),
    "an image of what is off": (
        'onnx = "required"',
        'onnx = "off"\nonnx-int8 = "off"',
        "repository",
        "image.repository: an image serves onnx, which is off",
    ),
    "everything off": (
        'onnx = "required"',
        'onnx = "off"\nonnx-int8 = "off"\ntorchscript = "off"\ntorchscript-int8 = "off"',
        "[formats]",
        "formats: every format is off",
    ),
    "one file twice": ('"samples.safetensors"', '"weights.safetensors"', "weights.safetensors@2", "the same file"),
    "package.toml as weights": (
        '"weights.safetensors"',
        '"package.toml"',
        "package.toml",
        "weights.file: package.toml is",
    ),
    "a path as a file": ('"weights.safetensors"', '"../weights"', "../weights", "weights.file: has another form"),
    "a repository with a scheme": ('"registry.example', '"https://registry.example', "https", "image.repository: has"),
    "a key twice": ("size = 99", "size = 99\nsize = 98", "size = 98", "not TOML: Cannot overwrite a value"),
    "broken TOML": ('name = "ids"', 'name = "ids', 'name = "ids', "not TOML: Illegal character"),
    "broken at the end": ('name = "churn model"\n', 'name = """churn', 'name = """churn', "not TOML"),
    "a dotted key without end": ("features = 3", f"a{'.a' * 5000} = 3", "arguments", "nested too deep"),
    "a dotted header without end": ("[image]", f"[a{'.a' * 5000}]\n[image]", "[a.a", "nested too deep"),
    "arrays in arrays": (
        "features = 3",
        f"f = {'[' * 300}{']' * 300}",
        "arguments",
        "architecture.arguments.f: Recurs",
    ),
    "an argument that is no number": ("features = 3", "features = nan", "arguments", "architecture.arguments.features"),
}


# and what is so in one schema only: (the good spec, and then as above)
BAD_IN_ONE = {
    "no schema": (GOOD, "schema = 2\n", "", "", "schema: missing"),
    "a schema of the past": (GOOD, "schema = 2", "schema = 0", "schema", "schema: Input should be 1 or 2; got 0"),
    "a schema in words": (GOOD, "schema = 2", 'schema = "2"', "schema", "schema: Input should be 1 or 2; got '2'"),
    "a later schema": (
        GOOD,
        "schema = 2",
        "schema = 3",
        "schema",
        f"is of schema 3, and this is packhouse {packhouse.__version__}: needs a later packhouse",
    ),
    "a later schema of other keys": (
        GOOD,
        "schema = 2",
        'schema = 3\nneeds = "9.1"\ncolour = "red"',
        "schema",
        f"is of schema 3, and this is packhouse {packhouse.__version__}: needs packhouse 9.1 or later",
    ),
    "a later schema that needs no version": (
        GOOD,
        "schema = 2",
        'schema = 3\nneeds = "9.1; rm -rf /"',
        "schema",
        "needs a later packhouse",
    ),
    "needs a later one": (
        GOOD,
        "schema = 2",
        'schema = 2\nneeds = "999"',
        "schema",
        f"needs packhouse 999 or later, and this is packhouse {packhouse.__version__}",
    ),
    "needs no version": (GOOD, "schema = 2", 'schema = 2\nneeds = "soon"', "needs", "needs: has another form"),
    "a key of schema 2 in schema 1": (
        GOOD_1,
        "size = 1234",
        'size = 1234\nprefix = "model."',
        "prefix",
        "weights.prefix: unknown key in schema 1: it needs `schema = 2`",
    ),
    "sizes in schema 1": (GOOD_1, "max = 64", "max = 64, sizes = [1]", "batch =", "axes.batch.sizes: unknown key in"),
    "a card in schema 1": (GOOD_1, "[image]", "[card]\n[image]", "[card]", "card: unknown key in schema 1: it needs"),
    "an unknown key in schema 1": (GOOD_1, "size = 1234", "size = 1234\nx = 1", "x = 1", "weights.x: unknown key"),
    "a format by its Python name in schema 1": (
        GOOD_1,
        "[formats]",
        '[formats]\nonnx_int8 = "off"',
        "onnx_int8",
        "formats.onnx_int8: unknown key",
    ),
    "a format by its Python name": (
        GOOD,
        "[formats]",
        '[formats]\nonnx_int8 = "off"',
        "onnx_int8",
        "formats.onnx_int8: has another form; got 'onnx_int8', want lower-case letters, digits and -, at most 63",
    ),
    "another format in schema 1": (
        GOOD_1,
        "[formats]",
        '[formats]\ntensorrt = "optional"',
        "tensorrt",
        "formats.tensorrt: unknown key",
    ),
    "text for a flag in schema 1": (
        GOOD_1,
        "labels = true",
        'labels = "class"',
        "labels",
        "samples.labels: Input should be a valid boolean",
    ),
    "labels of schema 1 in schema 2": (
        GOOD,
        'labels = "class"',
        "labels = true",
        "labels",
        'samples.labels: is true or false in schema 1: in schema 2, write "class" for true',
    ),
    "labels of neither": (
        GOOD,
        '"class"',
        '"classes"',
        "labels",
        "samples.labels: Input should be 'class' or 'value'; got 'classes'",
    ),
    "scores of schema 1 in schema 2": (
        GOOD,
        'kind = "scores"',
        "scores = true",
        "scores",
        'outputs[0].scores: is a key of schema 1: in schema 2, write kind = "scores" for true',
    ),
    "speed of schema 1 in schema 2": (
        GOOD,
        "[gates]",
        "[gates]\nint8_speed = 0.95",
        "int8_speed",
        "gates.int8_speed: is a key of schema 1: in schema 2, int8_worth says by which part INT8 must be smaller or",
    ),
    "an empty axis in schema 1": (
        GOOD_1,
        "min = 1, max = 64",
        "min = 0, max = 64",
        "batch =",
        "axes.batch.min: Input should be greater than or equal to 1",
    ),
    "an axis without an end": (GOOD, "min = 1, max = 64", "min = 1", "batch =", "axes.batch.max: missing"),
    "an axis without an end in schema 1": (
        GOOD_1,
        "min = 1, max = 64",
        "min = 1",
        "batch =",
        "axes.batch.max: missing",
    ),
    "sizes and an end": (GOOD, "min = 1,", "sizes = [1, 2],", "batch =", "axes.batch.max: sizes stand instead of min"),
    "sizes that go down": (GOOD, "min = 1, max = 64", "sizes = [2, 1]", "batch =", "axes.batch.sizes: must go up"),
    "an old opset in schema 1": (GOOD_1, "[formats]", "[formats]\nopset = 17", "opset", "greater than or equal to 18"),
    "an old opset": (
        GOOD,
        "[formats]",
        "[formats]\nopset = 16",
        "opset",
        "formats.opset: Input should be greater than",
    ),
    "NaN of an integer": (GOOD, "range = [0, 99]", "nan = true", "nan", "inputs[1].nan: int64 has no such value"),
    "lengths in floats": (GOOD, '["batch", 3]', '["batch", 3]\nlengths_of = "batch"', "lengths_of", "is float32"),
    "lengths of no axis": (
        GOOD,
        "range = [0, 99]",
        'lengths_of = "time"',
        "lengths_of",
        "no input has the axis 'time'",
    ),
    "rows in floats": (GOOD, '["batch", 3]', '["batch", 3]\nindex_of = "w"', "index_of", "an integer input has it"),
    "too few columns": (
        GOOD,
        '["batch", 2]',
        '["batch", 2]\ncolumns = ["no"]',
        "columns",
        "outputs[0].columns: 1 name",
    ),
    "a column twice": (
        GOOD,
        '["batch", 2]',
        '["batch", 2]\ncolumns = ["a", "a"]',
        "columns",
        "outputs[0].columns[1]: 'a' stands there twice",
    ),
    "columns that a step names": (
        GOOD,
        '["batch", 3]',
        '["batch", 3]\ncolumns = ["x", "y", "z"]',
        "columns",
        "inputs[0].columns: a step of the preprocessing names them already",
    ),
    "an embedding of integers": (
        GOOD,
        'kind = "scores"',
        'kind = "embedding"\ndtype = "int64"',
        "kind",
        "outputs[0].kind: an embedding is floating",
    ),
    "an embedding of one number": (
        GOOD.replace('kind = "scores"', 'kind = "embedding"'),
        '["batch", 2]',
        '["batch"]',
        '["batch"]',
        "outputs[0].shape: an embedding needs a last axis",
    ),
    "an axis that nothing has": (
        GOOD,
        "[axes]",
        "[axes]\ntime = { max = 9 }",
        "time",
        "axes.time: axis 'time' is declared but no input or output has it",
    ),
    "a cast to integers": (GOOD, "size = 1234", 'size = 1234\ncast = "int8"', "cast", "weights.cast: Input should be"),
    "a slice twice": (GOOD, "size = 99", 'size = 99\nslices = ["a", "a"]', "slices", "samples.slices[1]: 'a' stands"),
    "a want of another format": (
        GOOD,
        "[formats]",
        '[formats]\ntensorrt = { want = "maybe" }',
        "tensorrt",
        "formats.tensorrt.want: Input should be 'required', 'optional' or 'off'; got 'maybe'",
    ),
    "an option that is no number": (
        GOOD,
        "[formats]",
        '[formats]\ntensorrt = { want = "off", options = { a = nan } }',
        "tensorrt",
        "formats.tensorrt.options.a: Input should be a finite number",
    ),
    "options of what is built in": (
        GOOD,
        'onnx = "required"',
        'onnx = { want = "required", options = {} }',
        "onnx =",
        "formats.onnx.options: a format that is built in has no options",
    ),
    "a part below nothing": (GOOD, "[gates]", "[gates]\nint8_worth = -0.1", "int8_worth", "gates.int8_worth: Input"),
    "a cosine above one": (
        GOOD,
        "[gates]",
        "[gates]\nint8_embedding = { cosine = 1.1 }",
        "int8_embedding",
        "gates.int8_embedding.cosine: Input should be less than or equal to 1",
    ),
    "a margin in words": (GOOD, "[gates]", '[promotion]\nsize = "a"\n[gates]', 'size = "a"', "promotion.size: Input"),
    "a licence in prose": (
        GOOD,
        "[gates]",
        '[card]\nlicence = "free, for all!"\n[gates]',
        "licence",
        "card.licence: has another form; got 'free, for all!', want an SPDX expression, such as Apache-2.0",
    ),
}


@pytest.mark.parametrize("good, old, new, line, words", BAD_IN_ONE.values(), ids=BAD_IN_ONE)
def test_what_one_schema_refuses_is_named_with_its_line_and_key(good, old, new, line, words):
    assert old in good
    check_named(good.replace(old, new, 1), line, words)


@pytest.mark.parametrize("good", [GOOD_1, GOOD], ids=["schema 1", "schema 2"])
@pytest.mark.parametrize("old, new, line, words", BAD.values(), ids=BAD)
def test_a_bad_spec_is_named_with_its_line_and_key(good, old, new, line, words):
    assert good.count(old) >= 1
    check_named(good.replace(old, new, 1), line, words)


def check_named(text: str, line: str, words: str) -> None:
    with pytest.raises(SpecInvalid) as caught:
        parse(text.encode())
    assert words in str(caught.value)
    assert caught.value.where == (f"package.toml:{line_number(text, line)}" if line else "package.toml")


def line_number(text: str, words: str) -> int:
    """Of the first line that has the words; `words@2`: of the second."""
    wanted, _, which = words.partition("@")
    lines = [number for number, line in enumerate(text.splitlines(), start=1) if wanted in line]
    return lines[int(which or 1) - 1]


@pytest.mark.parametrize("good", [GOOD_1, GOOD], ids=["schema 1", "schema 2"])
def test_the_good_spec_is_good(good):
    spec = parse(good.encode())
    assert spec.outputs[0].scores
    assert spec.samples.labels is Labels.CLASS
    check_supported(spec)
    assert spec.batch == "batch"
    assert spec.formats.want(Format.PROGRAM) is Want.OFF
    assert spec.inputs[1].range == (0, 99)


def test_the_number_of_further_findings_is_said():
    text = GOOD.replace("size = 99", "size = 0").replace("size = 1234", "size = 0").replace("max = 64", "max = 0")
    with pytest.raises(SpecInvalid, match="and 2 more"):
        parse(text.encode())
    with pytest.raises(SpecInvalid) as alone:
        parse(GOOD.replace('["batch", 3]', '["batch", 3.5]').replace(ONE_INPUT, "").encode())
    assert "more" not in str(alone.value)


@pytest.mark.parametrize(
    "noise",
    [
        "# name = 1\n# [model]\n",
        'arguments = { text = """\n[model]\nname = "x"\n""" }\n',
        "arguments = { layers = [\n  [1, 2],\n  [3, 4],\n], x = '#' }\n",
        "arguments = { a = '''it's [ open''' }\n",
    ],
    ids=["comments", "text over lines", "arrays over lines", "a bracket in text"],
)
def test_the_line_is_right_behind_values_that_look_like_keys_and_headers(noise):
    text = f'[architecture]\nname = "a"\n{noise}[model]\nname = "Bad Name"\n'
    with pytest.raises(SpecInvalid) as caught:
        parse(f"schema = 1\n{text}".replace("\n", "\r\n").encode())
    assert caught.value.where == f"package.toml:{line_number(text, 'Bad Name') + 1}"


def test_the_line_is_right_behind_an_array_over_lines_in_the_same_table():
    array = "arguments = { layers = [\n  [1],\n  [2],\n], more = [\n  { nome = 1 },\n] }"
    text = GOOD.replace("arguments = { features = 3, classes = 2 }", f'{array}\nnome = "a"')
    with pytest.raises(SpecInvalid) as caught:
        parse(text.encode())
    assert str(caught.value) == f"package.toml:{line_number(text, 'nome@2')}: architecture.nome: unknown key (PH-0607)"


@pytest.mark.parametrize(
    "data, words",
    [
        (b"#" * (MAX_SPEC_BYTES + 1), "too large"),
        (b"#" * 10_000_000, "got 10,000,000 bytes"),
        (b'schema = 1\nname = "\xff"', "byte 19: not UTF-8"),
        (b"\xef\xbb\xbfschema = 1", "not TOML"),
        (b"schema = \0", "not TOML"),
        (b"x = " + b"[" * 5000 + b"]" * 5000, "nested too deep"),
        (b"", "missing"),
        (b"schema = " + b"1" * 5000, "not TOML that can be read"),
    ],
    ids=["too large", "10 MB", "not UTF-8", "byte order mark", "NUL", "deep", "empty", "digits"],
)
def test_bytes_that_are_no_spec_are_refused(data, words):
    with pytest.raises(SpecInvalid, match=re.escape(words)):
        parse(data)


@pytest.mark.parametrize(
    "line",
    [
        f'x = "{"a." * 300_000}"',
        f'x = "{"@" * 600_000}"',
        f"x = {{ {', '.join(f'a{i}.b = 1' for i in range(40_000))} }}",
        f"x{'.x' * 300_000} = 1",
        '#"\n' * 200_000,
    ],
    ids=["dots in text", "signs in text", "many tables", "one dotted key", "many lines"],
)
def test_no_spec_of_the_permitted_size_keeps_the_reader_busy(line):
    started = time.process_time()
    with pytest.raises(SpecInvalid):
        parse(f"{line}\n[model]\nname = 1\n".encode())
    assert time.process_time() - started < 5


@pytest.mark.parametrize(
    "secret",
    [
        "weights.pt?X-Amz-Credential=AKIDHUNTER2&X-Amz-Signature=hunter2",
        "https://bucket.example/weights.pt?sig=hunter2",
        "https://user:hunter2@bucket.example/weights.pt",
        "user:hunter2@bucket/weights.pt",
    ],
)
@pytest.mark.parametrize("place", ['"weights.safetensors"', '"registry.example:5000/models/churn"', '"churn"'])
def test_a_secret_in_a_url_does_not_get_into_a_message(secret, place):
    with pytest.raises(SpecInvalid) as caught:
        parse(GOOD.replace(place, f'"{secret}"', 1).encode())
    assert "hunter2" not in str(caught.value).lower()


def test_a_message_stays_short_whatever_the_key_is_called():
    with pytest.raises(SpecInvalid) as caught:
        parse(GOOD.replace("[model]", f'[model]\n{"k" * 100_000} = "{"v" * 100_000}"').encode())
    assert len(str(caught.value)) < 300


def test_nothing_in_a_spec_is_looked_up_or_expanded(monkeypatch):
    monkeypatch.setenv("HOME_OF_SECRETS", "hunter2")
    strings = ["${HOME_OF_SECRETS}", "$HOME_OF_SECRETS", "{{ env.HOME_OF_SECRETS }}", "!!python/name:os.system", "~"]
    given = ", ".join(f'"{text}"' for text in strings)
    extra = f'_target_ = "os.system", class_path = "os.system", x = [{given}]'
    spec = parse(GOOD.replace("features = 3", extra).encode())
    assert spec.architecture.arguments["x"] == strings
    assert spec.architecture.arguments["_target_"] == "os.system"


def test_a_square_of_one_axis_is_one_sample_and_no_stack_of_rows():
    square = GOOD.replace('["batch", 5]', '["batch", "batch"]')
    assert parse(square.encode()).batch is None


names = st.from_regex(r"[a-z_][a-z0-9_]{0,8}", fullmatch=True)
sizes = st.integers(1, 2**31 - 1)
scalars = st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=20)
arguments = st.dictionaries(
    texts, st.recursive(scalars | texts, lambda x: st.lists(x, max_size=3) | st.dictionaries(texts, x, max_size=3))
)


@st.composite
def documents(draw: st.DrawFn) -> dict[str, Any]:
    """Of either schema, as `read` gives them."""
    schema = draw(st.sampled_from([1, 2]))
    axes = draw(st.lists(names, min_size=1, max_size=3, unique=True))
    shape = st.lists(st.sampled_from(axes) | sizes, max_size=3)
    inputs = [{"name": "all", "shape": axes}] + [
        {"name": f"{name}_{number}", "shape": draw(shape), "dtype": draw(st.sampled_from(DType)).value}
        | draw(st.sampled_from([{}, {"range": [-1.5, 2]}]))
        for number, name in enumerate(draw(st.lists(names, max_size=2)))
    ]
    files = [{"file": f"{k}.safetensors", "sha256": k * 64, "size": draw(st.integers(1, 2**63 - 1))} for k in "ab"]
    document = {
        "schema": schema,
        "model": {"name": draw(st.from_regex(r"[a-z0-9][a-z0-9-]{0,20}", fullmatch=True))},
        "architecture": {"name": "a", "arguments": draw(arguments)},
        "axes": {axis: {"min": 1, "max": draw(sizes)} for axis in axes},
        "inputs": inputs,
        "outputs": [{"name": "y", "shape": [*draw(shape)]}],
        "weights": files[0],
        "samples": files[1],
    }
    if draw(st.booleans()):
        document["formats"] = {"onnx-int8": draw(st.sampled_from(Want)).value, "opset": draw(st.integers(18, 24))}
    elif draw(st.booleans()):
        document["formats"] = {"onnxruntime": draw(st.sampled_from(ORDER))}
    if draw(st.booleans()):
        document["gates"] = {"atol": draw(st.floats(0, 1)), "rtol": 0}
    for table, keys in (SCHEMA_1 if schema == 1 else SCHEMA_2).items():
        if given := draw(st.fixed_dictionaries({}, optional=keys)):
            place = document if not table else document.setdefault(table, {})
            place[0].update(given) if isinstance(place, list) else place.update(given)
    return document


flags = st.booleans()
SCHEMA_1 = {"outputs": {"scores": st.just(False)}, "samples": {"labels": flags}, "gates": {"int8_speed": st.just(2)}}
"""Table -> its keys, of which any may be there; of a list, of its first entry."""
SCHEMA_2 = {
    "": {
        "needs": st.just("0.2"),
        "promotion": st.just({"size": 0.5, "channels": ["production"]}),
        "card": st.fixed_dictionaries({}, optional={"task": st.just("churn"), "datasets": st.just(["a", "b"])}),
    },
    "axes": {"only": st.just({"sizes": [2, 4]}), "none": st.just({"min": 0, "max": 2})},
    "inputs": {
        "nan": flags,
        "inf": flags,
        "bounded": flags,
        "shape": st.just(["only", "none", 2]),
        "columns": st.just(["a", "b"]),
    },
    "outputs": {"kind": st.just("value")},
    "weights": {key: st.just("a.") for key in ("key", "prefix")}
    | {"ignore": st.just(["a*"]), "cast": st.just("float16")},
    "samples": {"labels": st.sampled_from(["class", "value"]), "slices": st.just(["old", "new"])},
    "formats": {
        "tensorrt": st.sampled_from(["off", {"want": "optional"}, {"want": "required", "options": {"a": [1, "b"]}}]),
        "program": st.sampled_from(["off", {"want": "optional"}]),
    },
    "gates": {"int8_worth": st.floats(0, 100), "int8_embedding": st.sampled_from([{}, {"cosine": 0.5}])},
}


@given(documents())
@settings(deadline=None, max_examples=200)
def test_a_rendered_spec_is_parsed_back_as_it_was(document):
    spec = checked(fitting(document))
    assert isinstance(spec, Spec), spec
    assert parse(render(spec)) == spec
    assert render(parse(render(spec))) == render(spec)
    assert tomllib.loads(render(spec).decode())["schema"] == document["schema"]
    again = Spec.model_validate_json(spec.model_dump_json(by_alias=True))
    assert again == spec, "as it crosses from one process to another"
    assert parse(render(again)) == spec


def fitting(document: dict[str, Any]) -> dict[str, Any]:
    """The keys were drawn one by one: without those that do not fit the others."""
    first = document["inputs"][0]
    used = {axis for tensor in (*document["inputs"], *document["outputs"]) for axis in tensor["shape"]}
    known = {axis: limits for axis, limits in document["axes"].items() if axis in used}
    for axis in ("only", "none"):
        if axis in used:
            known.setdefault(axis, {"max": 3})
    for tensor in document["inputs"]:
        for axis in tensor["shape"]:
            if isinstance(axis, str):
                known.setdefault(axis, {"max": 3})
    if first["shape"][-1] != 2:
        first.pop("columns", None)
    return document | {"axes": known}


def example() -> str:
    blocks = re.findall(
        r"^```toml\n(.*?)^```", (ROOT / "docs" / "spec.md").read_text("utf-8"), re.DOTALL | re.MULTILINE
    )
    assert len(blocks) == 1
    return blocks[0]


def test_the_example_of_the_documentation_is_a_spec():
    check_supported(parse(example().encode()))


def test_the_documentation_names_every_key_and_every_default():
    page = (ROOT / "docs" / "spec.md").read_text("utf-8")
    sections = {"model", "architecture", "axes", "inputs", "outputs", "weights", "samples", "preprocessing"}
    schema = Spec.model_json_schema(by_alias=True)
    assert sections < set(schema["properties"])
    for section in schema["properties"]:
        assert re.search(rf"`\[?\[?{section}\b", page), section
    for table in schema["$defs"].values():
        for key, value in table.get("properties", {}).items():
            row = re.search(rf"^\| `{key}` \|.*$", page, re.MULTILINE)
            assert row, key
            if isinstance(default := value.get("default"), (int, float)) and not isinstance(default, bool):
                assert re.search(rf"^\| `{key}` \|.*\b{re.escape(f'{default:g}')}\b", page, re.MULTILINE), key


def test_one_table_of_preprocessing_is_a_list_of_one_standard_step():
    listed = GOOD.replace("[preprocessing]", '[[preprocessing]]\nkind = "standard"')
    assert parse(GOOD.encode()).preprocessing == parse(listed.encode()).preprocessing
    (step,) = parse(GOOD.encode()).preprocessing
    assert isinstance(step, Standard)


@pytest.mark.parametrize("text", [LISTED, LOOKED_UP, GOOD.replace(ONE_TABLE, "")], ids=["list", "vocabulary", "none"])
def test_steps_are_read_back_as_they_were(text):
    spec = parse(text.encode())
    assert parse(render(spec)) == spec


def test_text_is_what_the_first_step_of_an_input_lists():
    assert parse(LISTED.encode()).text == {"ids": ("a", "b")}
    assert parse(LOOKED_UP.encode()).text == {}


# a spec with a list of steps, and then as above
BAD_STEPS = {
    "unknown kind": (LISTED, '"one-hot"', '"onehot"', "onehot", "preprocessing[1].kind: no such step; got 'onehot'"),
    "kind of another type": (LISTED, '"one-hot"', "1", "kind = 1", "preprocessing[1].kind: no such step; got '1'"),
    "unknown key of a step": (LISTED, "clip", "clips", "clips", "preprocessing[0].clips: unknown key"),
    "no rule for the unknown": (LISTED, 'unknown = "zeros"\n', "", "[[preprocessing]]@2", "[1].unknown: missing"),
    "a rule that no file can keep": (LISTED, '"zeros"', '"error"', '"error"', "Input should be 'zeros' or 'never'"),
    "text and numbers": (LISTED, '["a", "b"]', '["a", 1]', "categories", "[1].categories[0]: integers alone, or text"),
    "a category twice": (LISTED, '["a", "b"]', '["a", "a"]', "categories", "[1].categories[1]: 'a' stands there twice"),
    "no categories": (LISTED, '["a", "b"]', "[]", "categories", "preprocessing[1].categories: "),
    "text of small codes": (
        LISTED,
        '"int64"',
        '"int32"',
        'input = "ids"',
        "[1].input: text has int64 codes, and 'ids'",
    ),
    "floats looked up": (LOOKED_UP, 'input = "ids"', 'input = "x"', 'input = "x"', "and only integers are looked up"),
    "no columns": (LISTED, '["batch", 5]', '["batch"]', 'input = "ids"', "[1].input: 'ids' is ['batch'], and needs"),
    "minimum of another length": (LISTED, "[0, 1, 2]", "[0, 1]", "data_max", "[0].data_max: columns, data_min and"),
    "maximum below its minimum": (LISTED, "[1, 1, 3]", "[1, 0, 3]", "data_max", "a data_max is below its data_min"),
    "features of another number": (LISTED, '["batch", 3]', '["batch", 4]', "data_min", "[0].data_min: 3 minima, so"),
    "range that goes down": (LISTED, "[-1, 1]", "[1, -1]", "feature_range", "[0].feature_range: must go up"),
    "range of three": (
        LISTED,
        "[-1, 1]",
        "[-1, 0, 1]",
        "feature_range",
        "[0].feature_range: Tuple should have at most",
    ),
    "nobody concatenated": (LISTED, '["x", "ids"]', '["x", "y"]', "inputs =", "[2].inputs[1]: 'y' is not among"),
    "one concatenated twice": (
        LISTED,
        '["x", "ids"]',
        '["x", "x"]',
        "inputs =",
        "[2].inputs[1]: 'x' stands there twice",
    ),
    "other axes concatenated": (
        LISTED.replace('["batch", 5]', '["batch", 2, 5]'),
        "",
        "",
        "inputs =",
        "[2].inputs[1]: 'ids' has the axes ['batch', 2] and 'x' ['batch'] before the last",
    ),
    "integers concatenated": (
        LISTED,
        LISTED[LISTED.index('[[preprocessing]]\nkind = "one-hot"') : LISTED.index('[[preprocessing]]\nkind = "conc')],
        "",
        "inputs =",
        "[1].inputs[1]: 'ids' is int64 ['batch', 5] here, and must be float32",
    ),
    "what is gone": (
        LISTED,
        "[formats]",
        WORDS + "[formats]",
        'input = "ids"@2',
        "[3].input: 'ids' is not among the inp",
    ),
    "indices of another length": (LOOKED_UP, "[1, 0]", "[1]", "indices", "[0].indices: 1 indices of 2 values"),
    "index below zero": (LOOKED_UP, "[1, 0]", "[1, -1]", "indices", "preprocessing[0].indices[1]: Input should be gr"),
    "far apart": (
        LOOKED_UP,
        "[7, 5]",
        "[7, 5000000]",
        "values",
        "[0].values: lie too far apart: from smallest to larg",
    ),
    "text after numbers": (
        LOOKED_UP,
        "[formats]",
        STEPS[STEPS.index('[[preprocessing]]\nkind = "one-hot"') : STEPS.index('[[preprocessing]]\nkind = "conc')]
        + "[formats]",
        "categories",
        "preprocessing[1].categories: text comes in, so this must be the first step of 'ids'",
    ),
}


@pytest.mark.parametrize("text, old, new, line, words", BAD_STEPS.values(), ids=BAD_STEPS)
def test_a_step_that_does_not_fit_is_named_with_its_line_and_key(text, old, new, line, words):
    assert old in text
    check_named(text.replace(old, new, 1) if old else text, line, words)


NOT_YET = {
    "an axis of outputs": ("[axes]", "[axes]\nfound = { max = 9 }", '["batch", 2]', '["found", 2]', "axes.found: "),
    "an empty axis": ("min = 1, max = 64", "min = 0, max = 64", "", "", "axes.batch.min = 0: "),
    "sizes": ("min = 1, max = 64", "sizes = [1, 2]", "", "", "axes.batch.sizes: "),
    "NaN": ('["batch", 3]', '["batch", 3]\nnan = true', "", "", "inputs[0].nan: "),
    "infinity": ('["batch", 3]', '["batch", 3]\ninf = true', "", "", "inputs[0].inf: "),
    "bounds": ('["batch", 3]', '["batch", 3]\nbounded = true', "", "", "inputs[0].bounded: "),
    "lengths": ("range = [0, 99]", 'lengths_of = "batch"', "", "", "inputs[1].lengths_of: "),
    "rows": ("range = [0, 99]", 'index_of = "e.weight"', "", "", "inputs[1].index_of: "),
    "an embedding": ('"scores"', '"embedding"', "", "", 'outputs[0].kind = "embedding": '),
    "a key of a checkpoint": ("size = 1234", 'size = 1234\nkey = "ema"', "", "", "weights.key: "),
    "a prefix": ("size = 1234", 'size = 1234\nprefix = "model."', "", "", "weights.prefix: "),
    "what is ignored": ("size = 1234", 'size = 1234\nignore = ["loss.*"]', "", "", "weights.ignore: "),
    "a cast": ("size = 1234", 'size = 1234\ncast = "float16"', "", "", "weights.cast: "),
    "labels of a regression": ('labels = "class"', 'labels = "value"', "", "", 'samples.labels = "value": '),
    "slices": ("size = 99", 'size = 99\nslices = ["old", "new"]', "", "", "samples.slices: "),
    "embeddings' gate": ("[gates]", "[gates]\nint8_embedding = {}", "", "", "gates.int8_embedding: "),
    "a promotion": ("[gates]", "[promotion]\nsize = 0.1\n[gates]", "", "", "promotion: "),
    "two": ("size = 1234", 'size = 1234\ncast = "float16"\nkey = "ema"', "", "", "weights.key, weights.cast: "),
}


@pytest.mark.parametrize("old, new, old_too, new_too, words", NOT_YET.values(), ids=NOT_YET)
def test_a_key_that_is_not_acted_on_yet_is_read_and_is_refused_by_its_name_where_a_model_is_staged_or_planned(
    old, new, old_too, new_too, words
):
    assert old in GOOD
    assert old_too in GOOD
    spec = parse(GOOD.replace(old, new, 1).replace(old_too, new_too, 1).encode())
    assert parse(render(spec)) == spec
    with pytest.raises(SpecInvalid) as caught:
        check_supported(spec, where="source")
    does = f"packhouse {packhouse.__version__} reads this and does not act on it yet"
    assert str(caught.value) == f"source: {words}{does}; remove it, or use a later packhouse (PH-0606)"


@pytest.mark.parametrize(
    "new",
    [
        '[[outputs]]\ncolumns = ["no", "yes"]',
        '[card]\ntask = "churn"\nlicence = "Apache-2.0 OR MIT"\ndatasets = ["crm"]\nintended_use = ""\n[[outputs]]',
        '[[outputs]]\nshape = [2]\nname = "a"\n[[outputs]]',
    ],
    ids=["columns", "a card", "a value"],
)
def test_what_is_only_for_people_to_read_is_taken(new):
    check_supported(parse(GOOD.replace("[[outputs]]", new, 1).encode()))


def test_a_needs_with_one_more_zero_is_the_same_version():
    text = GOOD.replace("schema = 2", f'schema = 2\nneeds = "{NEEDS}.0"', 1)
    assert parse(text.encode()).needs == f"{NEEDS}.0"


def test_every_key_of_schema_2_has_its_place_in_memory():
    text = (
        GOOD.replace(ONE_TABLE, "")
        .replace("schema = 2", 'schema = 2\nneeds = "0.2"')
        .replace("[axes]", "[axes]\ntime = { sizes = [4, 8] }\nfound = { min = 0, max = 9 }")
        .replace('["batch", 3]', '["batch", "time", 3]\nnan = true\ncolumns = ["a", "b", "c"]')
        .replace("range = [0, 99]", 'lengths_of = "time"\nindex_of = "e.weight"')
        .replace('["batch", 2]', '["found", 2]\ncolumns = ["no", "yes"]')
        .replace("size = 1234", 'size = 1234\nkey = "ema"\nprefix = "model."\nignore = ["a.*"]\ncast = "float16"')
        .replace("size = 99", 'size = 99\nslices = ["old", "new"]')
        .replace("[formats]", '[formats]\ntensorrt = { want = "optional", options = { a = 1 } }\nopset = 17')
        .replace("[gates]", "[gates]\nint8_worth = 0.2\nint8_embedding = { cosine = 0.9 }")
        .replace("[mlflow]", '[promotion]\nsize = 0.1\n\n[card]\ncontact = "us"\n\n[mlflow]')
    )
    spec = parse(text.encode())
    assert parse(render(spec)) == spec
    time, found = spec.axes["time"], spec.axes["found"]
    assert (time.min, time.max, found.min) == (4, 8, 0)
    assert [time.allows(size) for size in (3, 4, 5, 8)] == [False, True, False, True]
    assert spec.formats.wanted == (*(format for format in Format if format is not Format.PROGRAM), "tensorrt")
    assert (spec.formats.want("tensorrt"), spec.formats.want("coreml")) == (Want.OPTIONAL, Want.OFF)
    assert spec.formats.others == {"tensorrt": Asked(want=Want.OPTIONAL, options={"a": 1})}
    assert spec.formats.asked["onnx"] == Asked(want=Want.REQUIRED)
    assert spec.formats.onnx_opset == 17
    assert (spec.gates.int8_embedding.cosine, spec.gates.int8_embedding.neighbours) == (0.9, 0.98)
    assert spec.promotion is not None
    assert spec.promotion.size == 0.1
