"""What the command tells the worker's programs, `python -m flows` and `python -m flows.sign`: one definition for both.

The command writes these arguments, and the program reads them. Law: parsed(type(a), written(a), prog="") == a. A field
without a default, or with a list of nothing, holds the words that stand alone; each other field is the option of its
name.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, NoReturn, TypeVar

from pydantic import TypeAdapter

from packhouse.exit_status import USAGE
from packhouse.spec.types import ChannelName


def _channel(name: str) -> str:
    try:
        return TypeAdapter(ChannelName).validate_python(name)
    except ValueError as error:
        words = f"{name!r} is no channel: lower-case letters, digits and -, at most 63"
        raise argparse.ArgumentTypeError(words) from error


@dataclass(frozen=True)
class ReleaseArguments:
    """Of `python -m flows`. channel: moves to the new releases. json: one document a model. verbose: all messages."""

    sources: tuple[str, ...]
    channel: str = field(default="latest", metadata={"check": _channel})
    json: bool = False
    verbose: bool = False


@dataclass(frozen=True)
class SignArguments:
    """Of `python -m flows.sign`. renew: also every channel whose signature is due. moved: the caller has just moved the
    channel."""

    references: tuple[str, ...] = ()
    renew: bool = False
    moved: bool = False


Arguments = TypeVar("Arguments", ReleaseArguments, SignArguments)


def written(arguments: ReleaseArguments | SignArguments) -> list[str]:
    """The arguments as a command line has them."""
    options: list[str] = []
    words: tuple[str, ...] = ()
    for each in fields(arguments):
        value = getattr(arguments, each.name)
        if isinstance(value, tuple):
            words = value
        elif isinstance(value, bool):
            options += [f"--{each.name}"] if value else []
        else:
            options.append(f"--{each.name}={value}")
    return [*options, "--", *words]


def parsed(kind: type[Arguments], line: Sequence[str], *, prog: str) -> Arguments:
    """The arguments of a command line; ends the process with a usage error where it has others."""
    parser = _Parser(prog=prog)
    for each in fields(kind):
        if each.default in (MISSING, ()):
            parser.add_argument(each.name, nargs="*" if each.default == () else "+")
        elif isinstance(each.default, bool):
            parser.add_argument(f"--{each.name}", action="store_true")
        else:
            parser.add_argument(f"--{each.name}", default=each.default, type=each.metadata.get("check", str))
    found = vars(parser.parse_args(line))
    given: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in found.items()}
    return kind(**given)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(USAGE, f"{message}\n")
