"""The error tree: two branches, one line each, and the same error on the other side of a process."""

from __future__ import annotations

import json
import pickle

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from packhouse import errors
from packhouse.errors import NotInstalled, PackhouseError, Refused, SpecInvalid, Unavailable, from_document

PARTS = ("what", "where", "got", "want", "next")
parts = st.fixed_dictionaries({name: st.text(max_size=60) for name in PARTS})
LEAVES = sorted(
    (kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, PackhouseError)),
    key=lambda kind: kind.__name__,
)


def made(kind: type[PackhouseError], given: dict[str, str]) -> PackhouseError:
    rest = dict(given)
    return kind(rest.pop("what"), **rest)


@given(parts, st.sampled_from(LEAVES))
@example(dict.fromkeys(PARTS, ""), Refused)
@example(dict.fromkeys(PARTS, "") | {"what": "sha256 differs  (PH-9001)"}, Refused)
def test_an_error_crosses_a_process_boundary_unchanged(parts, kind):
    error = made(kind, parts)
    document = json.loads(json.dumps(error.document()))
    other = from_document(document)
    assert type(other) is kind
    assert (str(other), other.document()) == (str(error), error.document())
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), again.document()) == (kind, error.document())


@given(parts)
def test_a_message_is_one_printable_line(parts):
    text = str(made(Refused, parts))
    assert text.isprintable()
    assert len(text.splitlines()) <= 1


def test_a_message_says_where_what_got_want_next_in_this_order():
    error = SpecInvalid("sha256 differs", where="weights.pt", got="3f9a", want="9a01", next="upload it again")
    assert str(error) == "weights.pt: sha256 differs; got 3f9a, want 9a01; upload it again (PH-0003)"


def test_a_file_name_can_not_write_a_line_or_a_colour_into_a_log():
    error = Refused("bad name", where="a\nrefused: b\x1b[31m\u2028c")
    assert str(error) == "a refused: b\\x1b[31m\\x2028c: bad name (PH-0002)"


@pytest.mark.parametrize("kind", [kind for kind in LEAVES if kind is not PackhouseError])
def test_every_error_is_either_refused_or_unavailable_and_says_so_in_its_exit_status(kind):
    assert issubclass(kind, Refused) is not issubclass(kind, Unavailable)
    refused = 64 if kind is NotInstalled else 1  # as wrong usage: the command is not for this installation
    assert kind.exit_status == (refused if issubclass(kind, Refused) else 2)
    assert kind.__doc__


def test_a_document_of_another_tree_is_no_error_of_ours():
    with pytest.raises(KeyError):
        from_document({"error": "SystemExit", "what": "gone"})
