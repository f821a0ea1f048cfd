"""Tables of the keys of `package.toml`, one for each table of it. A key's description stands below its field."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, Literal, get_args, get_origin, get_type_hints

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from tests.support.docs import fields
from tests.support.docs.markdown import linked, table
from tests.support.docs.places import Spec

HEAD = ("key", "type", "default", "description")
SCHEMA_1 = "Of schema 1 alone"
"""So begins the description of a key that no spec of schema 2 has."""


def blocks() -> dict[str, str]:
    return {f"spec: {name}": _table(model) for name, model in _tables(Spec, ())}


def _tables(model: type[BaseModel], path: tuple[str, ...]) -> Iterator[tuple[str, type[BaseModel]]]:
    """Each table with its name: `gates.int8_embedding`, and `preprocessing.one-hot` if the key takes several."""
    yield ".".join(path) or "top level", model
    for name, field in model.model_fields.items():
        below = list(_models(field.annotation))
        for each in below:
            last = (str(each.model_fields["kind"].default),) if len(below) > 1 else ()
            yield from _tables(each, (*path, field.alias or name, *last))
    for each in _models(get_type_hints(model).get("__pydantic_extra__")):
        yield from _tables(each, (*path, "NAME"))


def _models(kind: Any) -> Iterator[type[BaseModel]]:
    """The tables that a key's value may be."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        yield kind
    for part in get_args(kind):
        yield from _models(part)


def _table(model: type[BaseModel]) -> str:
    described = descriptions(model)
    rows = []
    for name, field in model.model_fields.items():
        if _names_a_step(field):
            continue
        if name not in described:
            raise ValueError(f"{model.__name__}.{name} has no description: write a docstring below it")
        if not described[name].startswith(SCHEMA_1):
            default = fields.default_of(field, quote='"')
            rows.append((f"`{field.alias or name}`", fields.type_of(field), default, linked(described[name])))
    return table(HEAD, rows)


def _names_a_step(field: FieldInfo) -> bool:
    return get_origin(field.annotation) is Literal and get_args(field.annotation) == (field.default,)


def descriptions(model: type[BaseModel]) -> dict[str, str]:
    """Field -> the docstring below it, of the model's own fields and of those that it inherits.

    They are docstrings, and no `Field(description=...)`: what a key is called for people must change no release's id.
    """
    found = {}
    for kind in reversed(model.__mro__[: model.__mro__.index(BaseModel)]):
        (parsed,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
        assert isinstance(parsed, ast.ClassDef)
        for field, below in pairwise(parsed.body):
            match field, below:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                    found[name] = " ".join(text.split())
    return found
