"""Every message that a user can meet, read out of the source: its code, its text, its class and its file.

`python -m tests.support.error_codes` writes docs/errors.md anew.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "errors.md"
FOLDERS = ("packhouse", "infra", "tasks", "flows")
OTHERS = frozenset({"Misplaced"})
"""Findings that become the text of an error of this tree."""
CODE = re.compile(r"PH-[0-9]{4}")
RETIRED = "## No longer used"


@dataclass(frozen=True)
class Message:
    """code: empty where it has none. text: with `{}` for what is filled in; empty where all of it is."""

    code: str
    kind: str
    text: str
    place: str


@cache
def trees() -> dict[Path, ast.Module]:
    """The source, by file."""
    paths = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]
    return {path: ast.parse(path.read_text()) for path in paths}


def messages() -> list[Message]:
    """All that are written out in the source, by file and line."""
    kinds = {*error_classes(), *OTHERS}
    return [message for path, tree in trees().items() for message in _of(tree, path, kinds)]


def error_classes() -> dict[str, str]:
    """Each class of the tree of errors, and the code of those of its messages that have none: its own or its base's."""
    nodes = [node for tree in trees().values() for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    bases = {node.name: _name(node.bases[0]) if node.bases else "" for node in nodes}
    own = {node.name: _class_code(node) for node in nodes}
    found: dict[str, str] = {}
    for name in bases:
        line = [name]
        while bases.get(line[-1]) and bases[line[-1]] not in line:
            line.append(bases[line[-1]])
        if "PackhouseError" in line:
            found[name] = next(own[each] for each in line if own.get(each))
    return found


def _class_code(node: ast.ClassDef) -> str:
    for line in node.body:
        target = line.targets[0] if isinstance(line, ast.Assign) else getattr(line, "target", None)
        if isinstance(line, ast.Assign | ast.AnnAssign) and line.value and _name(target) == "class_code":
            return str(ast.literal_eval(line.value))
    return ""


def _of(tree: ast.Module, path: Path, kinds: Collection[str]) -> Iterator[Message]:
    for text, kind in texts(tree, kinds):
        yield _message(text, kind, f"{path.relative_to(ROOT).as_posix()}:{text.lineno}")


def texts(tree: ast.Module, kinds: Collection[str]) -> Iterator[tuple[ast.expr, str]]:
    """The text of each error that is made, and the error's class; of a text in a variable, each that it may be."""
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    seen = set()
    for scope in (*reversed(functions), tree):  # the innermost first
        for node in ast.walk(scope):
            if isinstance(node, ast.Call) and node.args and (kind := _name(node.func)) in kinds and node not in seen:
                seen.add(node)
                for part in _branches(node.args[0]):
                    for text in _assigned(part.id, scope) if isinstance(part, ast.Name) else [part]:
                        yield text, kind


def _branches(node: ast.expr) -> list[ast.expr]:
    """The texts of which one is taken."""
    return [*_branches(node.body), *_branches(node.orelse)] if isinstance(node, ast.IfExp) else [node]


def _assigned(name: str, scope: ast.AST) -> list[ast.expr]:
    """What a variable of a function may be; nothing for one that comes from elsewhere."""
    given = [node for node in ast.walk(scope) if isinstance(node, ast.Assign) and _name(node.targets[0]) == name]
    return [part for node in given for part in _branches(node.value) if _text(part)]


def _message(node: ast.expr, kind: str, place: str) -> Message:
    text = _text(node)
    code = CODE.match(text)
    return Message(code[0] if code else "", kind, text[len(code[0]) + 1 :] if code else text, place)


def _text(node: ast.expr) -> str:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)
    return ""


def _name(node: ast.AST | None) -> str:
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def reasons() -> list[Message]:
    """Texts with a code that become a part of an error elsewhere: the judge's, a finding about a key, and why a format
    is left out."""
    known = {message.code for message in messages()}
    found = []
    for path, tree in trees().items():
        parts = {part for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
        for node in ast.walk(tree):
            text = _text(node) if isinstance(node, ast.Constant | ast.JoinedStr) and node not in parts else ""
            coded = re.search(r"^(PH-[0-9]{4}) | \((PH-[0-9]{4})\)$", text)
            if coded and (code := coded[1] or coded[2]) not in known:
                place = f"{path.relative_to(ROOT).as_posix()}:{node.lineno}"
                found.append(Message(code, "reason", text.replace(coded[0], ""), place))
    return found


def page() -> str:
    """docs/errors.md, whose list of codes that are no longer used is kept."""
    rows: dict[str, str] = {}
    for message in sorted([*messages(), *reasons()], key=lambda each: (each.code, each.place)):
        if message.code:
            text = message.text.replace("|", "\\|").replace("{}", "…")
            file = message.place.split(":")[0]
            rows.setdefault(message.code, f"| {message.code} | {message.kind} | {text} | `{file}` |")
    classes: dict[str, str] = {}
    for name, code in error_classes().items():
        classes.setdefault(code, name)
    retired = PAGE.read_text().partition(RETIRED)[2] if PAGE.exists() else "\n\nNone yet.\n"
    return "\n".join(
        [
            "# Error codes",
            "",
            "Every error ends with a code, such as `(PH-0123)`.",
            "A code belongs to one message for good.",
            "A changed wording keeps its code, and a code that is no longer used is not given again.",
            "`…` stands for what is filled in.",
            "This page is written by `make errors`.",
            "",
            "| code | error | message | file |",
            "|---|---|---|---|",
            *rows.values(),
            "",
            "## Codes of a class",
            "",
            "The text of some errors comes from another program.",
            "If it brings no code, the error has that of its class.",
            "",
            "| code | error |",
            "|---|---|",
            *(f"| {code} | {name} |" for code, name in sorted(classes.items())),
            "",
            f"{RETIRED}{retired}".rstrip(),
            "",
        ]
    )


if __name__ == "__main__":
    PAGE.write_text(page())
