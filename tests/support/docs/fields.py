"""A field of a pydantic model in words: its type with its limits, and its default."""

from __future__ import annotations

import types
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

MOST = 2**31 - 1
"""A bound from here on is no limit that a person would meet."""
MiB = 1024**2
GiB = 1024**3
WORDS = {bool: "true or false", int: "integer", float: "number", str: "text", Path: "text", SecretStr: "secret text"}
PLURALS = {"integer": "integers", "number": "numbers", "table": "tables"}
NUMBERS = {2: "two", 3: "three"}


def type_of(field: FieldInfo) -> str:
    """Such as `integer, 1 to 64`, `list of text`."""
    return _words(field.annotation, [each for each in field.metadata if isinstance(each, annotated_types.BaseMetadata)])


def default_of(field: FieldInfo, quote: str = "") -> str:
    """quote: what stands around text."""
    if field.is_required():
        return "required"
    if field.default_factory is not None:
        return "see description"
    return _value(field.default, quote)


def _value(value: Any, quote: str) -> str:
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    if isinstance(value, BaseModel):
        return "see its keys"
    if isinstance(value, bool):
        return str(value).lower()
    if value is None or value in ("", (), {}):
        return "none"
    if isinstance(value, int):
        return f"{value} ({_size(value)})" if value >= MiB else str(value)
    if isinstance(value, float):
        return f"{value:.10g}"
    if isinstance(value, tuple):
        return ", ".join(_value(each, quote) for each in value)
    home = Path.home()
    text = f"~/{value.relative_to(home)}" if isinstance(value, Path) and value.is_relative_to(home) else str(value)
    return f"`{quote}{text}{quote}`"


def _size(number: int) -> str:
    return f"{number // GiB} GiB" if number % GiB == 0 else f"{number // MiB} MiB"


def _words(kind: Any, limits: Iterable[Any] = ()) -> str:
    origin, parts = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _words(parts[0], [*limits, *(each for annotation in parts[1:] for each in _metadata(annotation))])
    if origin in (Union, types.UnionType) or origin is Literal or _is(kind, StrEnum):
        return _or(_choices(kind, limits))
    if origin is tuple:
        return _list(parts)
    if origin is dict:
        return "table"
    if _is(kind, BaseModel):
        return "table"
    return ", ".join(filter(None, (WORDS[kind], _limits(limits))))


def _choices(kind: Any, limits: Iterable[Any] = ()) -> list[str]:
    """Each value of an enumeration, and each kind of value of a union."""
    origin, parts = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return [word for part in parts if part is not type(None) for word in _choices(part, limits)]
    if origin is Literal:
        return [f"`{getattr(part, 'value', part)}`" for part in parts]
    return [f"`{each.value}`" for each in kind] if _is(kind, StrEnum) else [_words(kind, limits)]


def _is(kind: Any, base: type) -> bool:
    return isinstance(kind, type) and issubclass(kind, base)


def _metadata(annotation: Any) -> list[Any]:
    return list(annotation.metadata) if isinstance(annotation, FieldInfo) else [annotation]


def _list(parts: tuple[Any, ...]) -> str:
    if parts[-1] is not Ellipsis:
        item = _plain(parts[0])
        return f"{NUMBERS[len(parts)]} {PLURALS.get(item, item)}"
    item = _plain(parts[0])
    return f"list of {PLURALS.get(item, item)}"


def _plain(kind: Any) -> str:
    """Of the items of a list, without limits."""
    if get_origin(kind) is Annotated:
        return _plain(get_args(kind)[0])
    if get_origin(kind) in (Union, types.UnionType):
        return _or(list(dict.fromkeys(PLURALS.get(word, word) for word in map(_plain, get_args(kind)))))
    return _words(kind)


def _or(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


def _limits(metadata: Iterable[Any]) -> str:
    least = most = above = below = None
    for each in metadata:
        least = getattr(each, "ge", least)
        most = getattr(each, "le", most)
        above = getattr(each, "gt", above)
        below = getattr(each, "lt", below)
    most = None if most is not None and most >= MOST else most
    below = None if below is not None and below >= MOST else below
    if least is not None and most is not None and abs(least) < MOST:
        return f"{_number(least)} to {_number(most)}"
    said = (("at least", least), ("above", above), ("at most", most), ("below", below))
    return ", ".join(f"{word} {_number(bound)}" for word, bound in said if bound is not None and abs(bound) < MOST)


def _number(bound: float) -> str:
    return f"{bound:,.10g}" if bound < MiB else f"{bound:,.0f}"
