"""Each rule finds a text that breaks it, and leaves a text that does not."""

from __future__ import annotations

import pytest

from tests.words import rules
from tests.words.rules import MOST_WORDS, banned_words, findings, misspelt
from tests.words.sentences import markdown_blocks
from tests.words.texts import Text


def found(page: str) -> list[tuple[str, int]]:
    """The kind and line of each finding in a page."""
    texts = [Text("pages", "page.md", "page.md", block) for block in markdown_blocks(page)]
    return [(each.kind, each.line) for each in findings(texts)]


WRONG = [(banned, text) for banned in banned_words() for text in banned.wrong]
RIGHT = [(banned, text) for banned in banned_words() for text in banned.right]


@pytest.mark.parametrize("banned, text", WRONG, ids=[text for _, text in WRONG])
def test_a_banned_word_is_found(banned, text):
    assert banned.pattern.search(text)
    assert "word" in {kind for kind, _ in found(text)}


@pytest.mark.parametrize("banned, text", RIGHT, ids=[text for _, text in RIGHT])
def test_another_meaning_or_the_better_text_is_not_found(banned, text):
    assert not banned.pattern.search(text)
    assert found(text) == []


def test_each_banned_word_has_a_wrong_and_a_right_text_and_a_replacement():
    assert [banned for banned in banned_words() if not (banned.wrong and banned.right and banned.write)] == []


def test_a_banned_word_in_code_is_not_found():
    assert found("The field `torn` counts cases.\n\n```\nsays so\n```\n") == []


def test_a_banned_phrase_over_a_line_break_is_found():
    assert found("# A page\n\nThe cache is emptied by\nitself.\n") == [("word", 3)]


@pytest.mark.parametrize("words, kinds", [(MOST_WORDS, []), (MOST_WORDS + 1, [("sentence", 1)])])
def test_a_sentence_has_at_most_25_words(words, kinds):
    assert found(" ".join(["word"] * words) + ".") == kinds


def test_two_short_sentences_are_not_one_long_sentence():
    assert found(f"{'word ' * 20}end. {'word ' * 20}end.") == []


def test_a_misspelt_word_is_found_with_its_correction():
    assert misspelt(["a correct line", "we recieve it"]) == [(1, "recieve", "receive")]
    assert found("We recieve it.") == [("spelling", 1)]


def test_an_accepted_word_is_not_misspelt(tmp_path, monkeypatch):
    path = tmp_path / "rules.toml"
    path.write_text('accepted = ["recieve", "teh"]\n')
    monkeypatch.setattr(rules, "RULES", path)
    assert misspelt(["teh readers recieve adress"]) == [(0, "adress", "address")]


def test_a_finding_names_place_got_and_replacement():
    block = next(markdown_blocks("Nobody reads it."))
    (page,) = findings([Text("pages", "docs/page.md", "docs/page.md", block)])
    (error,) = findings([Text("errors", "PH-0102", "packhouse/module.py", block)])
    assert str(page).startswith("docs/page.md:1: banned word, got 'Nobody' in 'Nobody reads it.', write instead: the ")
    assert str(error).startswith("packhouse/module.py:1: banned word in PH-0102, got 'Nobody'")
