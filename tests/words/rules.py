"""The rules for prose: no banned word, at most 25 words in a sentence, correct spelling."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.words.sentences import Sentence, sentences
from tests.words.texts import Text

RULES = Path(__file__).with_name("rules.toml")
MOST_WORDS = 25
SHOWN = 60
CODESPELL_USAGE = 64


@dataclass(frozen=True)
class Banned:
    """A word or phrase that is not written.

    Attributes:
        pattern: Finds it in a sentence; matched without regard to case.
        write: What to write instead.
        wrong: Sentences in which it is found.
        right: Sentences in which it is not: an allowed meaning, or the better text.
    """

    pattern: re.Pattern[str]
    write: str
    wrong: tuple[str, ...]
    right: tuple[str, ...]


@dataclass(frozen=True)
class Finding:
    """A place that breaks a rule. kind: word, sentence or spelling."""

    text: Text
    kind: str
    line: int
    what: str

    def __str__(self) -> str:
        return f"{self.text.path}:{self.line}: {self.what}"


def findings(texts: Iterable[Text]) -> list[Finding]:
    """All findings, by file and line."""
    parts = [(text, sentence) for text in texts for sentence in sentences(text.block)]
    found = [each for text, sentence in parts for each in (*_long(text, sentence), *_banned(text, sentence))]
    found += [
        Finding(text, "spelling", sentence.line, f"spelling{_of(text)}, got {wrong!r}, write {right!r} instead")
        for number, wrong, right in misspelt([sentence.text for _, sentence in parts])
        for text, sentence in [parts[number]]
    ]
    return sorted(found, key=lambda each: (each.text.path, each.line, each.kind))


def _long(text: Text, sentence: Sentence) -> Iterator[Finding]:
    if sentence.words > MOST_WORDS:
        beginning = sentence.text if len(sentence.text) <= SHOWN else f"{sentence.text[:SHOWN]} [...]"
        what = f"long sentence{_of(text)}, got {sentence.words} words in {beginning!r}, write at most {MOST_WORDS}"
        yield Finding(text, "sentence", sentence.line, what)


def _banned(text: Text, sentence: Sentence) -> Iterator[Finding]:
    for banned in banned_words():
        for match in banned.pattern.finditer(sentence.text):
            around = sentence.text[max(match.start() - SHOWN // 3, 0) : match.end() + SHOWN // 3]
            what = f"banned word{_of(text)}, got {match[0].strip()!r} in {around!r}, write instead: {banned.write}"
            yield Finding(text, "word", sentence.line, what)


def _of(text: Text) -> str:
    """Names the text if its place does not."""
    return "" if text.group == "pages" else f" in {text.key}"


@cache
def banned_words() -> tuple[Banned, ...]:
    """The rows of rules.toml."""
    return tuple(
        Banned(re.compile(row["pattern"], re.IGNORECASE), row["write"], tuple(row["wrong"]), tuple(row["right"]))
        for row in tomllib.loads(RULES.read_text())["banned"]
    )


def misspelt(lines: Sequence[str]) -> list[tuple[int, str, str]]:
    """The index of the line, the word and its correction, as codespell finds them.

    Raises:
        RuntimeError: codespell did not run.
    """
    accepted = tomllib.loads(RULES.read_text())["accepted"]
    options = [f"--ignore-words-list={','.join(accepted)}"] if accepted else []
    command = [sys.executable, "-m", "codespell_lib", "--stdin-single-line", "--disable-colors", *options, "-"]
    ran = subprocess.run(command, input="\n".join(lines), capture_output=True, text=True)
    if ran.returncode == CODESPELL_USAGE or ran.stderr:
        raise RuntimeError(f"codespell failed with status {ran.returncode}: {ran.stderr}")
    found = re.findall(r"^(\d+): (\S+) ==> (.*)$", ran.stdout, re.MULTILINE)
    return [(int(number) - 1, wrong, right) for number, wrong, right in found]
