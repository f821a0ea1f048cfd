"""Every message that a user can meet has a code, which belongs to it for good. docs/errors.md lists them."""

from __future__ import annotations

import ast
import re
from collections import defaultdict

from packhouse import errors
from packhouse.errors import DigestMismatch, NotFound, ParityRefused, coded, from_document
from tests.support.error_codes import CODE, PAGE, RETIRED, _text, error_classes, messages, page, reasons, texts


def test_each_message_that_is_written_out_has_a_code() -> None:
    missing = [f"{each.place}: {each.text}" for each in messages() if not each.code and re.search("[a-z]", each.text)]
    assert not missing, "give each a code that docs/errors.md does not have, then `make errors`"


def test_code_belongs_to_one_message() -> None:
    texts: dict[str, set[str]] = defaultdict(set)
    for each in [*messages(), *reasons()]:
        texts[each.code].add(each.text)
    texts.pop("", None)
    assert {code: found for code, found in texts.items() if len(found) > 1} == {}


def test_class_of_errors_has_a_code_that_no_message_has() -> None:
    classes = error_classes()
    assert set(classes) >= {name for name in vars(errors) if name[0].isupper() and name != "ErrorDocument"} - {
        "Any",
        "ClassVar",
    }
    assert all(CODE.fullmatch(code) for code in classes.values())
    assert not set(classes.values()) & {each.code for each in messages()}


def test_page_lists_every_code_and_gives_none_twice() -> None:
    assert PAGE.read_text() == page(), "`make errors` writes it"
    used = {each.code for each in messages() if each.code} | set(error_classes().values())
    retired = CODE.findall(PAGE.read_text().partition(RETIRED)[2])
    assert len(retired) == len(set(retired))
    assert not used & set(retired), "a code that is no longer used is not given again"


def test_error_ends_with_its_code_and_keeps_it_across_a_process() -> None:
    error = DigestMismatch("PH-9001 sha256 differs", where="weights.pt", got="3f9a", next="stage it again")
    assert str(error) == "weights.pt: sha256 differs; got 3f9a; stage it again (PH-9001)"
    assert error.what == "sha256 differs"
    copy = from_document(error.document())
    assert (str(copy), copy.document()) == (str(error), error.document())


def test_error_that_quotes_another_has_one_code() -> None:
    inner = NotFound("PH-9002 no such channel", where="churn@latest")
    assert str(ParityRefused(f"onnx: {inner}")) == "onnx: churn@latest: no such channel (PH-9002)"
    assert (
        str(ParityRefused(f"PH-9003 was left out: {inner}")) == "was left out: churn@latest: no such channel (PH-9003)"
    )
    assert str(ParityRefused("no text of ours")) == f"no text of ours ({ParityRefused.class_code})"
    assert coded("off by 1 (PH-9004); the model branches") == ("PH-9004", "off by 1; the model branches")


def test_scanner_finds_texts_in_calls_branches_and_variables() -> None:
    source = """
def f(x):
    reason = "one" if x else f"two {x}"
    if x:
        raise NotFound(reason)
    raise errors.NotFound("PH-9005 three" if x else "four")
"""
    found = {_text(text) for text, _ in texts(ast.parse(source), {"NotFound"})}
    assert found == {"one", "two {}", "PH-9005 three", "four"}
