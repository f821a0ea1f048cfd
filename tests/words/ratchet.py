"""The listed exceptions: how many findings a text that is older than the rules may have. The numbers only go down."""

from __future__ import annotations

import tomllib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.words.rules import Finding

EXCEPTIONS = Path(__file__).with_name("exceptions.toml")
UPDATE = "python -m tests.words --update"
HEAD = f"""\
# Findings in texts that are older than the rules: docs/writing.md. New text has none.
# After a text got better, `{UPDATE}` lowers the numbers. Nothing raises them.
"""


@dataclass(frozen=True, order=True)
class Entry:
    """What is counted: the findings of one kind in one page, help text, error or docstring."""

    group: str
    key: str
    kind: str


def count(found: Iterable[Finding]) -> Counter[Entry]:
    """The findings by entry."""
    return Counter(_entry(each) for each in found)


def _entry(finding: Finding) -> Entry:
    return Entry(finding.text.group, finding.text.key, finding.kind)


def problems(found: list[Finding], listed: Counter[Entry], place: str) -> Iterator[str]:
    """Each entry with more findings than are listed, with all of these findings, or with fewer.

    Args:
        found: All findings of the project.
        listed: The exceptions.
        place: The file of the exceptions, to name in a message.
    """
    counts = count(found)
    for entry in sorted(counts.keys() | listed.keys()):
        got, most = counts[entry], listed[entry]
        if got > most:
            yield from (str(each) for each in found if _entry(each) == entry)
        if got > most > 0:
            yield f"{place}: {entry.key} has {most} listed for {entry.kind!r}, got {got}, mend at least {got - most}"
        elif got < most:
            yield f"{place}: {entry.key} has {most} listed for {entry.kind!r}, got {got}, lower it with `{UPDATE}`"


def lowered(counts: Counter[Entry], listed: Counter[Entry]) -> Counter[Entry]:
    """The exceptions, none higher than before and none higher than what was found."""
    return Counter({entry: min(most, counts[entry]) for entry, most in listed.items() if counts[entry]})


def read(path: Path) -> Counter[Entry]:
    """The exceptions of a file."""
    groups = tomllib.loads(path.read_text())
    return Counter(
        {
            Entry(group, key, kind): number
            for group, keys in groups.items()
            for key, kinds in keys.items()
            for kind, number in kinds.items()
        }
    )


def render(listed: Counter[Entry]) -> str:
    """The text of the file: one line for each key, so that two branches seldom change the same line."""
    rows: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for entry in sorted(listed):
        rows[entry.group][entry.key].append(f"{entry.kind} = {listed[entry]}")
    parts = [
        f"\n[{group}]\n" + "".join(f'"{key}" = {{ {", ".join(numbers)} }}\n' for key, numbers in keys.items())
        for group, keys in rows.items()
    ]
    return HEAD + "".join(parts)
