"""Where sources may lie: below the prefixes that an operator allows, and nowhere else."""

from __future__ import annotations

from collections.abc import Sequence

from packhouse.errors import Refused, SourceNotAllowed, printable
from packhouse.store import open_store

MAX_SOURCE_CHARACTERS = 2000


def checked_source(url: str, allowed: Sequence[str]) -> str:
    """The source's URL in its one form. allowed: prefixes, of which whole parts of the path count: `s3://b/a` allows
    `s3://b/a/x` and not `s3://b/ab`; none: every source. An s3:// source must name the same endpoint, addressing and
    region as the prefix, or leave all of them out: then they are the prefix's.

    Law: checked_source(checked_source(u, a), a) == checked_source(u, a).
    Raises SourceNotAllowed: it lies elsewhere, or is no folder and no s3:// prefix.
    """
    if not url or len(url) > MAX_SOURCE_CHARACTERS or not url.isprintable() or url != url.strip():
        raise SourceNotAllowed("PH-0221 is no source", where=printable(url)[:80], want="a folder or s3://bucket/prefix")
    place, _, options = _in_one_form(url).partition("?")
    if not allowed:
        return f"{place}?{options}" if options else place
    for prefix in allowed:
        above, _, theirs = _in_one_form(prefix).partition("?")
        if (place == above or place.startswith(above.rstrip("/") + "/")) and options in ("", theirs):
            return f"{place}?{theirs}" if theirs else place
    raise SourceNotAllowed(
        "PH-0220 lies outside the prefixes that this worker takes sources from",
        where=place,
        want=", ".join(prefix.partition("?")[0] for prefix in allowed),
        next="stage it there, or add its prefix to PACKHOUSE_SOURCES",
    )


def check_program(url: str, trusted: Sequence[str]) -> None:
    """A program is code. trusted: as `allowed` of checked_source, but none trusts no source.

    Raises SourceNotAllowed: it lies elsewhere."""
    try:
        if trusted and checked_source(url, trusted) == url:  # else the bytes would come from another server
            return
    except SourceNotAllowed as error:
        refused = error
    else:
        refused = SourceNotAllowed("", want=", ".join(prefix.partition("?")[0] for prefix in trusted) or "none, so far")
    raise SourceNotAllowed(
        "PH-0219 is a program (.pt2), which is code, and lies outside the prefixes whose programs this worker runs",
        where=url.partition("?")[0],
        want=refused.want,
        next="stage weights and an architecture, or let the operator add its prefix to PACKHOUSE_TRUSTED_PROGRAMS",
    )


def _in_one_form(url: str) -> str:
    if ".." in url.partition("?")[0].split("/"):
        raise SourceNotAllowed("PH-0217 `..` leads elsewhere", where=url.partition("?")[0])
    try:
        return open_store(url).url
    except SourceNotAllowed:
        raise
    except Refused as error:  # another scheme, credentials in it, unknown options
        raise SourceNotAllowed(error.coded, where=error.where, got=error.got, want=error.want) from error
    except (ValueError, OSError) as error:  # brackets that are no address, names longer than the system takes
        raise SourceNotAllowed("PH-0218 is no URL of a source", want="a folder or s3://bucket/prefix") from error
