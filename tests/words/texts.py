"""The texts that a reader of the project meets: pages, help texts, error messages and public docstrings."""

from __future__ import annotations

import ast
import inspect
import os
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer
import typer.main

import packhouse
from packhouse.cli.app import app
from tests.support import error_codes
from tests.words.sentences import PLACEHOLDER, Block, docstring_blocks, markdown_blocks, without_code

ROOT = Path(__file__).resolve().parents[2]
BUILT = frozenset({"build", "dist", "wheels", "node_modules"})
HINTS = ("where", "got", "want", "next")
"""Arguments of an error that can hold text beside the message."""


@dataclass(frozen=True)
class Text:
    """A piece of prose.

    Attributes:
        group: What kind of text: pages, help, errors or docstrings.
        key: Names it for good within its group, also when files move: path of a page, command, code or public name.
        path: The file in which it is written.
        block: The prose and its line.
    """

    group: str
    key: str
    path: str
    block: Block


def all_texts() -> list[Text]:
    """Every text of the project."""
    return [*pages(project_pages()), *help_texts(app), *errors(), *docstrings()]


def project_pages() -> list[Path]:
    """All Markdown files but those in folders that tools write: hidden ones, but for .github, and what is built."""
    found = list[Path]()
    for folder, below, files in os.walk(ROOT):  # without git: an archive of the source has none
        below[:] = [name for name in below if name not in BUILT and (name == ".github" or not name.startswith("."))]
        found += [Path(folder) / name for name in files if name.endswith(".md")]
    return sorted(found)


def pages(paths: list[Path]) -> Iterator[Text]:
    """The prose of Markdown files."""
    for path in paths:
        name = _relative(path)
        yield from (Text("pages", name, name, block) for block in markdown_blocks(path.read_text()))


def help_texts(program: typer.Typer) -> Iterator[Text]:
    """What `--help` shows, by command. The text of an option that commands share counts once, for the program."""
    by_text: dict[str, list[tuple[str, str, int]]] = defaultdict(list)
    for name, command in _commands(typer.main.get_command(program), program.info.name or ""):
        path, line = _place(command.callback)
        shown = [command.help, command.epilog, *(getattr(each, "help", "") for each in command.params)]
        for text in dict.fromkeys(text for text in shown if text):
            by_text[text].append((name, path, line))
    for text, uses in by_text.items():
        name, path, line = uses[0]
        # No line breaks: all sentences have the line of the command's function.
        block = Block(line, without_code(" ".join(text.split())))
        yield Text("help", name if len(uses) == 1 else name.split()[0], path, block)


def _commands(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    yield name, command
    for word, each in getattr(command, "commands", {}).items():
        if not each.hidden:
            yield from _commands(each, f"{name} {word}")


def _place(function: Any) -> tuple[str, int]:
    if function is None:  # a group of commands without options
        return "packhouse", 1
    code = inspect.unwrap(function).__code__
    return _relative(Path(code.co_filename)), code.co_firstlineno


def errors() -> Iterator[Text]:
    """Messages with a code, and the fixed texts that stand beside a message."""
    for message in (*error_codes.messages(), *error_codes.reasons()):
        if message.code:
            path, _, line = message.place.partition(":")
            yield Text("errors", message.code, path, Block(int(line), _filled(message.text)))
    for path, tree in error_codes.trees().items():
        yield from hints(tree, _relative(path))


def hints(tree: ast.Module, path: str) -> Iterator[Text]:
    """The texts that stand beside a message with a code, in the same call."""
    for call in ast.walk(tree):
        if isinstance(call, ast.Call) and call.args and call.keywords:
            codes = [code[0] for text, _ in _strings(call.args[0]) if (code := error_codes.CODE.match(text))]
            values = [keyword.value for keyword in call.keywords if codes and keyword.arg in HINTS]
            for text, line in (each for value in values for each in _strings(value)):
                yield Text("errors", codes[0], path, Block(line, _filled(text)))


def _strings(node: ast.AST) -> Iterator[tuple[str, int]]:
    """The texts in an expression, f-strings whole, and their lines."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value, node.lineno
    elif isinstance(node, ast.JoinedStr):
        yield "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values), node.lineno
    else:
        for child in ast.iter_child_nodes(node):
            yield from _strings(child)


def _filled(text: str) -> str:
    return without_code(text.replace("{}", PLACEHOLDER))


def docstrings() -> Iterator[Text]:
    """Of what `packhouse.__all__` names, and of the public methods and properties of its classes."""
    for name in packhouse.__all__:
        value = getattr(packhouse, name)
        members = vars(value).items() if inspect.isclass(value) else []
        public = [(f"packhouse.{name}.{key}", member) for key, member in members if not key.startswith("_")]
        for key, each in [(f"packhouse.{name}", value), *public]:
            yield from _docstring(key, _unwrapped(each))


def _unwrapped(member: Any) -> Any:
    """The function of a method or property; None for what has no docstring of its own."""
    function = getattr(member, "fget", None) or getattr(member, "__func__", member)
    return function if inspect.isfunction(function) or inspect.isclass(function) else None


def _docstring(key: str, value: Any) -> Iterator[Text]:
    text = inspect.cleandoc(value.__doc__ or "") if value else ""
    if text:
        source, first = inspect.getsourcelines(value)
        opening = next(number for number, line in enumerate(source) if '"""' in line)
        path = _relative(Path(inspect.getsourcefile(value) or ""))
        yield from (Text("docstrings", key, path, block) for block in docstring_blocks(text, first + opening))


def _relative(path: Path) -> str:
    return path.resolve().relative_to(ROOT).as_posix() if path.resolve().is_relative_to(ROOT) else path.as_posix()
