"""Listed findings are allowed, more are not, and fewer must be written down."""

from __future__ import annotations

from collections import Counter

from tests.words import ratchet
from tests.words.ratchet import Entry
from tests.words.rules import Finding
from tests.words.sentences import Block
from tests.words.texts import Text

OLD = Text("pages", "docs/old.md", "docs/old.md", Block(1, ""))
WORD = Entry("pages", "docs/old.md", "word")


def problems(number: int, listed: int) -> list[str]:
    """What the ratchet reports about a page with this number of findings."""
    found = [Finding(OLD, "word", line, "got it") for line in range(1, number + 1)]
    return list(ratchet.problems(found, Counter({WORD: listed} if listed else {}), "exceptions.toml"))


def test_as_many_findings_as_are_listed_are_no_problem():
    assert problems(2, listed=2) == []


def test_more_findings_than_are_listed_are_all_shown():
    assert problems(2, listed=1) == [
        "docs/old.md:1: got it",
        "docs/old.md:2: got it",
        "exceptions.toml: docs/old.md has 1 listed for 'word', got 2, mend at least 1",
    ]


def test_a_new_text_has_no_exception():
    assert problems(1, listed=0) == ["docs/old.md:1: got it"]


def test_fewer_findings_than_are_listed_must_be_written_down():
    (line,) = problems(1, listed=2)
    assert line.startswith("exceptions.toml: docs/old.md has 2 listed for 'word', got 1, lower it with")
    (line,) = problems(0, listed=2)
    assert "got 0" in line


def test_a_listed_finding_of_another_kind_does_not_count():
    found = [Finding(OLD, "spelling", 1, "got it")]
    lines = list(ratchet.problems(found, Counter({WORD: 1}), "exceptions.toml"))
    assert len(lines) == 2
    assert lines[0] == "docs/old.md:1: got it"


def test_an_update_lowers_and_never_raises():
    better, worse, gone = (Entry("pages", key, "word") for key in ("better.md", "worse.md", "gone.md"))
    new = Entry("pages", "new.md", "word")
    listed = Counter({better: 5, worse: 5, gone: 5})
    assert ratchet.lowered(Counter({better: 2, worse: 9, new: 1}), listed) == {better: 2, worse: 5}


def test_a_written_file_reads_back_and_is_in_order(tmp_path):
    listed = Counter(
        {
            Entry("pages", "b.md", "word"): 1,
            Entry("pages", "a.md", "word"): 3,
            Entry("pages", "a.md", "sentence"): 2,
            Entry("errors", "PH-0102", "word"): 1,
            Entry("help", "packhouse verify", "sentence"): 1,
        }
    )
    path = tmp_path / "exceptions.toml"
    path.write_text(ratchet.render(listed))
    assert ratchet.read(path) == listed
    assert path.read_text().index('"a.md" = { sentence = 2, word = 3 }\n') < path.read_text().index(
        '"b.md" = { word = 1 }'
    )


def test_the_exceptions_of_the_project_are_as_the_program_writes_them():
    assert ratchet.render(ratchet.read(ratchet.EXCEPTIONS)) == ratchet.EXCEPTIONS.read_text()
