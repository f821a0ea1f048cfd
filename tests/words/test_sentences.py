"""What counts as prose, as a sentence and as a word."""

from __future__ import annotations

import pytest

from tests.words.sentences import Block, docstring_blocks, markdown_blocks, sentences


def parts(text: str) -> list[tuple[int, str]]:
    """The sentences of a page and their lines."""
    return [(each.line, each.text) for block in markdown_blocks(text) for each in sentences(block)]


def words(text: str) -> int:
    """The words of the only sentence in a page."""
    (sentence,) = [each for block in markdown_blocks(text) for each in sentences(block)]
    return sentence.words


@pytest.mark.parametrize(
    "text, number",
    [
        ("Three plain words.", 3),
        ("Run `packhouse verify model@latest --trust key.pem` now.", 3),
        ("The file ``a `b` c``.", 3),
        ("See [the other page](docs/page.md#a-long-heading).", 4),
        ("See https://example.org/a/b.html for more.", 4),
        ("A dash - or an arrow -> is no word.", 8),
        ("Half-precision and/or *emphasis*.", 3),
        ("![a picture](picture.svg)", 2),
    ],
)
def test_words_of_a_sentence(text, number):
    assert words(text) == number


def test_a_sentence_ends_at_a_stop_and_not_at_an_abbreviation():
    assert parts("It fails. packhouse stops! Why? Some files, e.g. weights, differ.") == [
        (1, "It fails."),
        (1, "packhouse stops!"),
        (1, "Why?"),
        (1, "Some files, e.g. weights, differ."),
    ]


def test_lines_of_sentences_in_a_paragraph():
    assert parts("# Heading\n\nFirst one. Second\nover lines.\nThird.\n") == [
        (1, "Heading"),
        (3, "First one."),
        (3, "Second over lines."),
        (5, "Third."),
    ]


def test_each_list_item_and_table_cell_stands_alone():
    page = "Steps:\n\n- first\n- second\n  goes on\n\n| a | b |\n|---|---|\n| one | `x` two |\n"
    assert parts(page) == [
        (1, "Steps:"),
        (3, "first"),
        (4, "second goes on"),
        (7, "a"),
        (7, "b"),
        (9, "one"),
        (9, "… two"),
    ]


def test_code_blocks_comments_and_link_targets_are_no_prose():
    page = "Text.\n\n```sh\nfenced\n```\n\n    indented\n\n<!-- comment -->\n\n[target]: https://example.org\n"
    assert parts(page) == [(1, "Text.")]


def test_table_rows_of_an_error_code_are_left_to_the_source():
    page = "| code | message |\n|---|---|\n| PH-0123 | text of the error |\n| other | text |\n"
    assert [text for _, text in parts(page)] == ["code", "message", "other", "text"]


def test_items_of_a_google_docstring_stand_alone_and_doctests_are_left_out():
    text = "Does it.\n\nMore text\nhere.\n\nArgs:\n    one: The first.\n    two: The\n        second.\n\n>>> code()\n"
    blocks = [(each.line, " ".join(each.text.split())) for each in docstring_blocks(text, 10)]
    assert blocks == [
        (10, "Does it."),
        (12, "More text here."),
        (15, "Args:"),
        (16, "one: The first."),
        (17, "two: The second."),
    ]


def test_text_without_a_stop_at_its_end_is_a_sentence():
    assert [each.text for each in sentences(Block(1, "an error; next step"))] == ["an error; next step"]
