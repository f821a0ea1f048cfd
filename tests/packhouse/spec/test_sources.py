"""Where sources may lie."""

from __future__ import annotations

import pytest

from packhouse.errors import SourceNotAllowed
from packhouse.spec.sources import check_program, checked_source

STORE = "s3://models/sources?endpoint=http://store:7480"
ALLOWED = [STORE, "file:///srv/sources"]


@pytest.mark.parametrize(
    "url, normal",
    [
        ("/srv/sources/churn/run-17", "file:///srv/sources/churn/run-17"),
        ("/srv/sources//churn/./run-17/", "file:///srv/sources/churn/run-17"),
        ("file:///srv/sources", "file:///srv/sources"),
        ("s3://models/sources/a?endpoint=http://store:7480", "s3://models/sources/a?endpoint=http://store:7480"),
        ("s3://models/sources/a/", "s3://models/sources/a?endpoint=http://store:7480"),
    ],
)
def test_a_source_below_an_allowed_prefix_comes_out_in_its_one_form(url, normal):
    assert checked_source(url, ALLOWED) == normal
    assert checked_source(normal, ALLOWED) == normal


@pytest.mark.parametrize(
    "url",
    [
        "",
        " /srv/sources/a",
        "/srv/sources/a\n",
        "/srv/sources/\x1b[2J",
        "/srv/sourcesandmore/a",
        "/srv",
        "/etc",
        "relative/path",
        "/srv/sources/../secrets",
        "file:///srv/sources/%2e%2e/secrets",
        "file://elsewhere/srv/sources/a",
        "s3://models/sources-of-others/a",
        "s3://models/source",
        "s3://models-2/sources/a",
        "s3://models/sources/../other",
        "s3://models/sources/a?endpoint=http://evil:7480",
        "s3://models/sources/a?region=eu",
        "s3://key:secret@models/sources/a",
        "https://models/sources/a",
        "gopher://x",
        "s3://[models/sources",
        "file://[srv/sources/a",
        "s3://models\u2100/sources",
        "s3://models/sources/a?endpoint=http://[",
        "{{ event.payload.source }}",
        "x" * 3000,
    ],
)
def test_what_lies_elsewhere_or_is_no_source_is_refused(url):
    with pytest.raises(SourceNotAllowed):
        checked_source(url, ALLOWED)


def test_a_secret_in_a_url_is_not_repeated():
    with pytest.raises(SourceNotAllowed) as caught:
        checked_source("s3://key:hunter2@models/sources/a", ALLOWED)
    assert "hunter2" not in str(caught.value)


def test_without_a_list_every_source_is_allowed_and_still_has_to_be_one():
    assert checked_source("/anywhere/at/all", []) == "file:///anywhere/at/all"
    with pytest.raises(SourceNotAllowed):
        checked_source("http://x/y", [])


def test_a_program_is_taken_from_a_trusted_prefix_and_without_a_list_from_nowhere():
    check_program("s3://models/sources/a", ["s3://models/sources"])
    for trusted in ([], ["s3://models/programs"], ["s3://models/sources/b"]):
        with pytest.raises(SourceNotAllowed, match=r"is code, and lies outside .* PACKHOUSE_TRUSTED_PROGRAMS"):
            check_program("s3://models/sources/a", trusted)


def test_a_program_from_another_server_than_the_trusted_prefix_names_is_not_taken():
    """The bytes come from where the URL says, and a bucket of the same name may be anybody's elsewhere."""
    with pytest.raises(SourceNotAllowed):
        check_program("s3://models/sources/a", [STORE])
    check_program("s3://models/sources/a?endpoint=http://store:7480", [STORE])
