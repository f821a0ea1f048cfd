"""The API reference, from signatures and Google-style docstrings. griffe reads the source and imports nothing."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import griffe

from tests.support.docs.markdown import linked, table
from tests.support.docs.places import ERRORS, PUBLIC, packhouse

ROOT = Path(__file__).resolve().parents[3]
SENTENCE = re.compile(r"(?<=[.?!])\s+(?=[A-Z`])")
CALLED = ("__call__",)
"""Magic methods that an interface asks for."""


def blocks() -> dict[str, str]:
    top = [_object(_path(name), f"packhouse.{name}") for name in packhouse.__all__]
    others = {module: [_object(f"{module}.{name}", name) for name in names] for module, names in PUBLIC.items()}
    return {f"api: {name}": "\n\n".join(parts) for name, parts in {"packhouse": top, **others}.items()} | {
        "api: errors": _errors()
    }


def modules() -> set[str]:
    """The modules that the reference is built from."""
    return {*PUBLIC, ERRORS, *(_path(name).rpartition(".")[0] for name in packhouse.__all__)}


def _path(name: str) -> str:
    found = getattr(packhouse, name)
    return f"{found.__module__}.{found.__qualname__}"


@cache
def _module(name: str) -> griffe.Module:
    path = ROOT.joinpath(*name.split(".")).with_suffix(".py")
    return griffe.visit(name, filepath=path, code=path.read_text())


def _object(path: str, shown: str) -> str:
    module, _, name = path.rpartition(".")
    found = _module(module)[name]
    if isinstance(found, griffe.Function):
        return "\n\n".join([f"### `{shown}`", *function(found, shown)])
    assert isinstance(found, griffe.Class)
    methods = [each for each in found.functions.values() if not each.name.startswith("_") or each.name in CALLED]
    below = ["\n\n".join([f"#### `{shown}.{each.name}`", *function(each, each.name)]) for each in methods]
    return "\n\n".join([f"### `{shown}`", *_class(found), *below])


def _class(found: griffe.Class) -> list[str]:
    sections = _sections(found)
    described = _items(sections, "attributes")
    if any(str(decorator.value).startswith("dataclass") for decorator in found.decorators):
        fields = [name for name, each in found.attributes.items() if "property" not in each.labels]
        if [each.name for each in described] != fields:
            raise ValueError(f"{found.path}: Attributes must describe {fields}")
    rows = [(f"`{each.name}`", f"`{each.annotation}`", linked(each.description)) for each in described]
    return [*_texts(sections), *([table(("attribute", "type", "description"), rows)] if rows else [])]


def function(found: griffe.Function, shown: str) -> list[str]:
    """The parts of a function's reference.

    Raises ValueError: its docstring describes other parameters than it has, or not what it returns.
    """
    sections = _sections(found)
    given = [each for each in found.parameters if each.name != "self"]
    described = _described(sections, "parameters")
    names = [f"{_stars(each)}{each.name}" for each in given]
    if [*described] != names:
        raise ValueError(f"{found.path}: Args describes {[*described]}, and the parameters are {names}")
    returned = next((section.value for section in sections if section.kind.value == "returns"), None)
    if (str(found.returns or "None") != "None") != bool(returned) and not _unannotated(found):
        raise ValueError(f"{found.path}: Returns does not fit the annotation {found.returns}")
    rows = [
        (f"`{name}`", f"`{each.annotation}`" if each.annotation else "", _default(each), linked(described[name]))
        for name, each in zip(names, given, strict=True)
    ]
    raised = [(f"`{each.annotation}`", linked(each.description)) for each in _items(sections, "raises")]
    return [
        f"```python\n{_signature(shown, given, found.returns)}\n```",
        *_texts(sections),
        *([table(("argument", "type", "default", "description"), rows)] if rows else []),
        *([f"**Returns**:\n{_lines(returned[0].description)}"] if returned else []),
        *([table(("error", "raised if"), raised)] if raised else []),
    ]


def _unannotated(found: griffe.Function) -> bool:
    return found.returns is None and not any(each.annotation for each in found.parameters)


def _stars(parameter: griffe.Parameter) -> str:
    kinds = {griffe.ParameterKind.var_positional: "*", griffe.ParameterKind.var_keyword: "**"}
    return kinds.get(parameter.kind or griffe.ParameterKind.positional_or_keyword, "")


def _default(parameter: griffe.Parameter) -> str:
    if _stars(parameter):
        return "none"
    return "required" if parameter.default is None else f"`{parameter.default}`"


def _signature(name: str, given: Iterable[griffe.Parameter], returns: Any) -> str:
    """One parameter a line, if there are several."""
    parts = []
    for each in given:
        if each.kind is griffe.ParameterKind.keyword_only and not any(part.startswith("*") for part in parts):
            parts.append("*")
        annotation = f": {each.annotation}" if each.annotation else ""
        default = "" if each.default is None or _stars(each) else f" = {each.default}"
        parts.append(f"{_stars(each)}{each.name}{annotation}{default if annotation else default.replace(' ', '')}")
    inside = ", ".join(parts) if len(parts) < 3 else "".join(f"\n    {part}," for part in parts) + "\n"
    return f"{name}({inside})" + (f" -> {returns}" if returns else "")


def _errors() -> str:
    """The tree of errors: a class, what it is a kind of, and when it is raised."""
    classes = _module(ERRORS).classes
    rows = [(f"`{name}`", f"`{found.bases[0]}`", _summary(found)) for name, found in classes.items()]
    return "\n\n".join([*_class(classes["PackhouseError"]), table(("error", "is a kind of", "meaning"), rows)])


def _summary(found: griffe.Class) -> str:
    return " ".join(_texts(_sections(found))[0].split())


def _sections(found: griffe.Object) -> list[griffe.DocstringSection]:
    if not found.docstring:
        raise ValueError(f"{found.path} has no docstring")
    one = {"returns_multiple_items": False, "returns_named_value": False}
    return found.docstring.parse("google", warnings=False, **one)


def _items(sections: Iterable[griffe.DocstringSection], kind: str) -> list[Any]:
    return [each for section in sections if section.kind.value == kind for each in section.value]


def _described(sections: Iterable[griffe.DocstringSection], kind: str) -> Mapping[str, str]:
    return {each.name: each.description for each in _items(sections, kind)}


def _texts(sections: Iterable[griffe.DocstringSection]) -> list[str]:
    """Paragraphs outside of sections, one sentence a line."""
    texts = [section.value for section in sections if section.kind.value == "text"]
    return [_lines(paragraph) for text in texts for paragraph in text.split("\n\n")]


def _lines(paragraph: str) -> str:
    return SENTENCE.sub("\n", linked(" ".join(paragraph.split())))
