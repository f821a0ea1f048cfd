"""What the command tells the worker's programs arrives as it was told."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from packhouse.cli.worker_arguments import ReleaseArguments, SignArguments, parsed, written
from packhouse.exit_status import USAGE

WORD = st.text(min_size=1).filter(lambda word: word != "--")
CHANNEL = st.from_regex(r"[a-z0-9][a-z0-9-]{0,62}", fullmatch=True)


@given(
    st.one_of(
        st.builds(
            ReleaseArguments,
            sources=st.lists(WORD, min_size=1).map(tuple),
            channel=CHANNEL,
            json=st.booleans(),
            verbose=st.booleans(),
        ),
        st.builds(SignArguments, references=st.lists(WORD).map(tuple), renew=st.booleans(), moved=st.booleans()),
    )
)
def test_what_is_written_is_read_again(arguments):
    assert parsed(type(arguments), written(arguments), prog="packhouse") == arguments


def test_a_person_may_type_them_in_any_order():
    typed = ["--json", "a", "b", "--channel", "beta", "--verbose"]
    assert parsed(ReleaseArguments, typed, prog="") == ReleaseArguments(("a", "b"), "beta", json=True, verbose=True)
    assert parsed(ReleaseArguments, ["a"], prog="") == ReleaseArguments(("a",))
    assert parsed(SignArguments, ["linear@latest", "--renew"], prog="") == SignArguments(("linear@latest",), renew=True)


@pytest.mark.parametrize(
    ("kind", "line", "words"),
    [
        (ReleaseArguments, [], "sources"),
        (ReleaseArguments, ["a", "--color"], "unrecognized arguments: --color"),
        (ReleaseArguments, written(replace(ReleaseArguments(("a",)), channel="Not One")), "'Not One' is no channel"),
        (ReleaseArguments, written(replace(ReleaseArguments(("a",)), channel="--json")), "'--json' is no channel"),
        (SignArguments, ["--all"], "unrecognized arguments: --all"),
    ],
)
def test_other_arguments_are_a_usage_error_in_one_line(capsys, kind, line, words):
    with pytest.raises(SystemExit) as ended:
        parsed(kind, line, prog="packhouse")
    assert ended.value.code == USAGE
    said = capsys.readouterr().err
    assert words in said
    assert said.count("\n") == 1
