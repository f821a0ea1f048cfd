"""Tensors on the wire: JSON and the protocol's binary data, to arrays and back.

From JSON every item's type is looked at: true is no 1, 1.5 is no integer, "1" is no number, null is none of them. JSON
has no NaN and no infinity; where an output has them, they stand there as the text "NaN", "Infinity" or "-Infinity".
"""

from __future__ import annotations

import struct
from itertools import chain
from math import prod
from typing import Any

import numpy as np

from packhouse.formats.arrays import Array
from packhouse.serving.datatypes import Datatype
from packhouse.serving.errors import RequestRefused

MAX_RANK = 32
_LENGTH = struct.Struct("<I")
_WORDS = {bool: "true or false", int: "integers", float: "fractions", str: "text", dict: "objects", list: "lists"}


def from_json(data: Any, datatype: Datatype, where: str) -> Array:
    """Nested lists as an array of their own shape; a plain value as one of rank 0. Raises RequestRefused."""
    shape: list[int] = []
    level: list[Any] = [data]
    while level and type(level[0]) is list:
        kinds, sizes = set(map(type, level)), set()
        if kinds == {list}:
            sizes = set(map(len, level))
        if len(sizes) != 1:
            raise RequestRefused("PH-0528 its lists are not of one length and depth", where=where)
        shape.append(sizes.pop())
        if len(shape) > MAX_RANK:
            raise RequestRefused("PH-0529 nested too deep", where=where, want=f"at most {MAX_RANK} lists in each other")
        level = list(chain.from_iterable(level))
    return _array(level, datatype, where).reshape(shape)


def _array(items: list[Any], datatype: Datatype, where: str) -> Array:
    found = set(map(type, items))
    if wrong := found - _taken(datatype):
        got = " and ".join(sorted(_WORDS.get(kind, "null") for kind in wrong))
        raise RequestRefused(f"PH-0526 holds what {datatype} has not", where=where, got=got, want=_wanted(datatype))
    try:
        with np.errstate(over="ignore"):  # what becomes infinite is refused as such
            return np.array(items, datatype.dtype)
    except OverflowError as error:
        info = np.iinfo(datatype.dtype.name)
        want = f"{info.min:,} to {info.max:,}"
        raise RequestRefused(f"PH-0527 holds integers that {datatype} has not", where=where, want=want) from error


def _taken(datatype: Datatype) -> set[type]:
    if datatype is Datatype.BOOL:
        return {bool}
    if datatype is Datatype.BYTES:
        return {str}
    return {int, float} if datatype.floating else {int}


def _wanted(datatype: Datatype) -> str:
    words = {Datatype.BOOL: "true or false", Datatype.BYTES: "text"}
    return words.get(datatype, "numbers" if datatype.floating else "integers")


def from_binary(data: memoryview, datatype: Datatype, shape: tuple[int, ...], where: str) -> Array:
    """Little-endian items in row-major order; BYTES: each with its length before it. Raises RequestRefused."""
    if datatype is Datatype.BYTES:
        texts = _texts(data, where)
        if len(texts) != prod(shape):
            raise _misfit(where, f"{len(texts)} texts", shape)
        return np.array(texts, object).reshape(shape)
    if len(data) != prod(shape) * datatype.dtype.itemsize:
        raise _misfit(where, f"{len(data):,} bytes", shape)
    if datatype is Datatype.BOOL and bytes(data).strip(b"\0\1"):
        raise RequestRefused("PH-0525 holds bytes that are no BOOL", where=where, want="0 and 1")
    found = np.frombuffer(data, datatype.dtype.newbyteorder("<")).reshape(shape)
    return np.require(found, requirements="A")  # the JSON before it may have any length


def _texts(data: memoryview, where: str) -> list[str]:
    texts, place = [], 0
    while place < len(data):
        start = place + _LENGTH.size
        size = _LENGTH.unpack(data[place:start])[0] if start <= len(data) else len(data)
        if start + size > len(data):
            raise RequestRefused(
                "PH-0523 a text ends after the data", where=where, want="4 bytes of length before each text"
            )
        try:
            texts.append(str(data[start : start + size], "utf-8"))
        except UnicodeDecodeError as error:
            raise RequestRefused("PH-0524 a text is not UTF-8", where=where) from error
        place = start + size
    return texts


def _misfit(where: str, got: str, shape: tuple[int, ...]) -> RequestRefused:
    return RequestRefused("PH-0522 data does not fit the shape", where=where, got=got, want=f"shape {list(shape)}")


def shaped(array: Array, shape: tuple[int, ...], where: str) -> Array:
    """JSON data, flat or nested, in the shape that the request names."""
    if array.shape == shape:
        return array
    if array.ndim > 1 or array.size != prod(shape):
        raise _misfit(where, f"shape {list(array.shape)}", shape)
    return array.reshape(shape)


def to_json(array: Array) -> Any:
    """What orjson writes: the array itself, or lists where it has values that JSON has not."""
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        return _spelled(array.tolist())
    return array.tolist() if array.dtype.kind in "OUS" or not array.ndim else np.ascontiguousarray(array)


def _spelled(value: Any) -> Any:
    if isinstance(value, list):
        return [_spelled(item) for item in value]
    if value != value:
        return "NaN"
    return value if abs(value) != float("inf") else "Infinity" if value > 0 else "-Infinity"


def to_binary(array: Array) -> bytes:
    if array.dtype.kind in "OUS":
        texts = [str(text).encode() for text in array.ravel().tolist()]
        return b"".join(part for text in texts for part in (_LENGTH.pack(len(text)), text))
    return np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()
