"""The protocol's datatypes, and what numpy, ONNX Runtime and packhouse call them."""

from __future__ import annotations

from enum import StrEnum

import numpy as np

from packhouse.formats.arrays import Array


class Datatype(StrEnum):
    """As the Open Inference Protocol names them. BYTES: text; in an array, an object of str each."""

    BOOL = "BOOL"
    UINT8 = "UINT8"
    UINT16 = "UINT16"
    UINT32 = "UINT32"
    UINT64 = "UINT64"
    INT8 = "INT8"
    INT16 = "INT16"
    INT32 = "INT32"
    INT64 = "INT64"
    FP16 = "FP16"
    FP32 = "FP32"
    FP64 = "FP64"
    BYTES = "BYTES"

    @property
    def dtype(self) -> np.dtype[np.generic]:
        return _NUMPY[self]

    @property
    def floating(self) -> bool:
        return self.dtype.kind == "f"

    @property
    def integer(self) -> bool:
        return self.dtype.kind in "iu"


_NAMES = {
    Datatype.BOOL: "bool",
    Datatype.FP16: "float16",
    Datatype.FP32: "float32",
    Datatype.FP64: "float64",
    Datatype.BYTES: "object",
}
_NUMPY = {datatype: np.dtype(_NAMES.get(datatype, datatype.value.lower())) for datatype in Datatype}
_TENSORS = {"bool": "bool", "float16": "float16", "float32": "float", "float64": "double", "object": "string"}
BY_ONNX = {f"tensor({_TENSORS.get(dtype.name, dtype.name)})": datatype for datatype, dtype in _NUMPY.items()}
"""By ONNX Runtime's name of a session's input or output: `tensor(float)`."""
BY_SPEC = {dtype.name: datatype for datatype, dtype in _NUMPY.items()} | {"string": Datatype.BYTES}
"""By the name in package.toml."""


def datatype_of(array: Array) -> Datatype:
    """Raises KeyError: an array of another kind, which no model that packhouse releases has."""
    return Datatype.BYTES if array.dtype.kind in "OUS" else BY_SPEC[array.dtype.name]
