"""Which texts are read, under which keys."""

from __future__ import annotations

import ast
from typing import Annotated

import typer

from tests.words.texts import all_texts, help_texts, hints

SHARED = Annotated[str, typer.Option(help="Shared by commands.")]


def made_up_program() -> typer.Typer:
    """A program with two commands that share an option."""
    program = typer.Typer(name="tool", help="What the tool is for.", add_completion=False)

    @program.callback()
    def options() -> None:
        """Nothing here."""

    @program.command()
    def first(store: SHARED = "", only: Annotated[str, typer.Option(help="Only of `first`.")] = "") -> None:
        """Does the first thing."""

    @program.command()
    def second(store: SHARED = "") -> None:
        """Does the second
        thing."""

    return program


def test_help_texts_are_counted_by_command_and_shared_ones_once():
    texts = [(each.key, each.block.text) for each in help_texts(made_up_program())]
    assert sorted(texts) == [
        ("tool", "Shared by commands."),
        ("tool", "What the tool is for."),
        ("tool first", "Does the first thing."),
        ("tool first", "Only of …."),
        ("tool second", "Does the second thing."),
    ]
    assert {each.path for each in help_texts(made_up_program())} >= {"tests/words/test_texts.py"}


def test_texts_beside_a_message_count_under_its_code():
    tree = ast.parse(
        'raise Refused("PH-0999 is wrong", where=path, next=f"correct {name}")\nother("text", next="none")\n'
    )
    assert [(each.key, each.block.line, each.block.text) for each in hints(tree, "a.py")] == [
        ("PH-0999", 1, "correct …")
    ]


def test_every_kind_of_text_of_the_project_is_read():
    read = {(each.group, each.key) for each in all_texts()}
    assert {
        ("pages", "README.md"),
        ("pages", "docs/writing.md"),
        ("help", "packhouse"),
        ("help", "packhouse verify"),
        ("errors", "PH-0102"),
        ("docstrings", "packhouse.fetch"),
        ("docstrings", "packhouse.stage"),
    } <= read
