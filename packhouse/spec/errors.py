"""What is wrong with a spec, in one line: the key, and what was expected."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pydantic import ValidationError

from packhouse.errors import coded
from packhouse.spec.steps import KINDS
from packhouse.spec.toml_location import MAX_SHOWN, Path
from packhouse.spec.types import Misplaced

MODEL_NAME = r"^[a-z0-9][a-z0-9-]{0,62}$"
PLAIN_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,119}$"
SHA256 = r"^[0-9a-f]{64}$"
REPOSITORY = r"^[a-z0-9][a-z0-9.-]*(:[0-9]{1,5})?(/[a-z0-9]+([._-]+[a-z0-9]+)*)+$"
LICENCE = r"^[A-Za-z0-9][A-Za-z0-9.+:() -]{0,199}$"
PLAIN_WORDS = {"Extra inputs are not permitted": "PH-0607 unknown key", "Field required": "PH-0608 missing"}
"""pydantic's text of a finding -> ours."""

VERSION = r"^[0-9]{1,4}(\.[0-9]{1,4}){0,2}$"


@dataclass(frozen=True)
class Finding:
    """The first of what is wrong with a document. path: the key. others: how many more findings there are."""

    path: Path
    what: str
    got: str = ""
    want: str = ""
    others: int = 0
    code: str = ""

    def coded(self, text: str) -> str:
        """The text, with the finding's code in front if it has one."""
        return f"{self.code} {text}" if self.code else text

    @property
    def next(self) -> str:
        return f"and {self.others} more" if self.others else ""


def finding(error: ValidationError, *, one_step: bool) -> Finding:
    """one_step: preprocessing is written as one table, and not as a list of steps."""
    findings = error.errors(include_url=False)
    first = findings[0]
    cause = first.get("ctx", {}).get("error")
    path = (*_written(first["loc"]), *(cause.path if isinstance(cause, Misplaced) else ()))
    no_kind = first["type"].startswith("union_tag") and path[:1] == ("preprocessing",)
    if no_kind:
        path = (*path, "kind")
    if one_step and path[:1] == ("preprocessing",):
        path = (path[0], *path[2:])
    what = first["msg"].removeprefix("Value error, ")
    what = PLAIN_WORDS.get(what, what)
    if path[2:3] == ("shape",) and len(path) == 4:
        what = "PH-0609 neither a size nor the name of an axis"
    if no_kind:
        what = "PH-0610 no such step"
    if not cause and isinstance(path[-1], int) and {"categories", "values"} & set(path):
        what = "PH-0611 integers alone, or text alone"
    got = first["ctx"]["tag"] if first["type"] == "union_tag_invalid" else first["input"]
    if what.startswith("String should match"):
        what = "PH-0612 has another form"
    code, what = coded(what)
    pattern = str(first.get("ctx", {}).get("pattern", ""))
    return Finding(
        path,
        what,
        got="" if first["type"] in ("missing", "extra_forbidden") or cause else shown(got),
        want=", ".join(KINDS) if no_kind else _FORMS.get(pattern, pattern),
        others=_places(_written(each["loc"]) for each in findings) - 1,
        code=code,
    )


def _places(paths: Iterable[tuple[int | str, ...]]) -> int:
    """How many places have a finding: pydantic also calls a list too short whose only entry is wrong."""
    every = set(paths)
    return sum(not any(other != path and other[: len(path)] == path for other in every) for path in every)


_FORMS = {
    MODEL_NAME: "lower-case letters, digits and -, at most 63",
    r"^[A-Za-z_][A-Za-z0-9_]{0,62}$": "letters, digits and _, at most 63, no digit first",
    PLAIN_NAME: "letters, digits, . _ and -, at most 120: a plain name, no folder, no URL",
    SHA256: "sha256: 64 lower-case hex digits",
    REPOSITORY: "host/path, lower case, no scheme, no user: registry.example/models/churn",
    LICENCE: "an SPDX expression, such as Apache-2.0",
    VERSION: "a version, such as 0.2",
}


def shown(value: object) -> str:
    """A value for a message, without what may be a secret in it: a URL's user and query."""
    if isinstance(value, (dict, list)):
        return "a table" if isinstance(value, dict) else "an array"
    if not isinstance(value, str):
        return str(value)[:MAX_SHOWN]
    plain, query, _ = value.partition("?")
    _, at, public = plain.rpartition("@")
    return repr(f"{'…@' if at else ''}{public}"[:MAX_SHOWN] + ("?…" if query else ""))


def _written(location: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """pydantic's location as the keys that stand in the file: it adds `[key]` to a dictionary's bad key, and the
    members of a union to a size in a shape, to a value among the arguments and to a step of the preprocessing."""
    if location[:1] == ("preprocessing",):
        return (*location[:2], *location[3:4], *(part for part in location[4:] if isinstance(part, int)))
    if location[:2] == ("architecture", "arguments"):
        return location[:3]
    if location[2:3] == ("options",):
        return location[:4]
    if location[2:3] == ("shape",):
        return location[:4]
    return tuple(part for part in location if part != "[key]")
