"""Checks the project's text: banned words, sentences over 25 words and spelling. A part of `make lint`.

`python -m tests.words` checks all pages, help texts, error messages and public docstrings against the listed
exceptions. `python -m tests.words PAGE...` and `--all` show every finding, listed or not. `--update` lowers the numbers
of the exceptions to what is found. Exit status: 0, no finding; 1, a finding.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from tests.words import ratchet
from tests.words.rules import findings
from tests.words.texts import ROOT, all_texts, pages


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the program; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.words", description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "pages", nargs="*", type=Path, metavar="PAGE", help="show every finding of these Markdown files"
    )
    parser.add_argument("--all", action="store_true", help="show every finding, also those that are listed")
    parser.add_argument("--update", action="store_true", help="lower the numbers in exceptions.toml to what is found")
    options = parser.parse_args(arguments)
    if options.pages and options.update:
        parser.error("--update counts the whole project; give no pages")
    found = findings(pages(options.pages) if options.pages else all_texts())
    if options.pages or options.all:
        shown = [str(each) for each in found]
    else:
        listed = ratchet.read(ratchet.EXCEPTIONS)
        if options.update:
            listed = ratchet.lowered(ratchet.count(found), listed)
            ratchet.EXCEPTIONS.write_text(ratchet.render(listed))
        shown = list(ratchet.problems(found, listed, ratchet.EXCEPTIONS.relative_to(ROOT).as_posix()))
    for line in shown:
        print(line)
    if shown:
        print(f"Findings: {len(shown)}. docs/writing.md explains the rules.")
    return 1 if shown else 0


if __name__ == "__main__":
    raise SystemExit(main())
