"""The promotion policy: what the operator asks of a release before a channel moves to it. `<model>/policy.toml`.

It is the operator's and not the spec's: a changed margin changes no release id, and a training job can not loosen its
own gate. A spec may tighten it.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import tomli_w
from pydantic import Field, ValidationError, model_validator

from packhouse.artifact import Frozen
from packhouse.errors import SpecInvalid, coded
from packhouse.spec.errors import PLAIN_WORDS
from packhouse.spec.toml_location import key_of, read
from packhouse.spec.types import PRODUCTION, ChannelName, Number
from packhouse.spec.versions import refuse_newer

POLICY = "policy.toml"
SCHEMA = 1
Points = Annotated[Number, Field(ge=0, le=1)]
Part = Annotated[Number, Field(ge=0, le=1000)]
MARGINS = ("accuracy_drop", "slice_drop", "changed", "p95", "size")


class Promotion(Frozen):
    """Margins that a release must keep to. One that is left out is not compared."""

    no_worse_than: ChannelName | None = None
    """The channel whose release is compared with. None: `production`."""
    channels: tuple[ChannelName, ...] = ()
    """The channels that are guarded. None: `production`."""
    accuracy_drop: Points | None = None
    """Largest drop of accuracy over all evaluation samples; 0.01 is one percentage point."""
    slice_drop: Points | None = None
    """Largest drop of accuracy in any slice."""
    changed: Points | None = None
    """Largest part of samples whose output changes."""
    p95: Part | None = None
    """How much slower the release may be, as a part."""
    size: Part | None = None
    """How much larger the release may be, as a part."""

    @model_validator(mode="after")
    def _each_once(self) -> Promotion:
        if len(set(self.channels)) != len(self.channels):
            raise ValueError("a channel stands there twice")
        return self

    @property
    def margins(self) -> dict[str, float]:
        """The margins that are given, by name."""
        given = {name: getattr(self, name) for name in MARGINS}
        return {name: margin for name, margin in given.items() if margin is not None}

    def guards(self, channel: str) -> bool:
        """Whether a release must keep to the margins before this channel moves to it."""
        return bool(self.margins) and channel in (self.channels or (PRODUCTION,))


class Retention(Frozen):
    """How many releases are kept."""

    keep: Annotated[int, Field(strict=True, ge=0, le=1_000_000)]
    """How many earlier releases of each channel are kept."""


class Policy(Frozen):
    """One parsed policy.toml."""

    schema_version: Annotated[Literal[1], Field(alias="schema")]
    promotion: Promotion | None = None
    retention: Retention | None = None


def parse_policy(data: bytes, *, where: str = POLICY) -> Policy:
    """Raises SpecInvalid: the file and key of the first finding, and how many more there are."""
    document = read(data, where=where)
    refuse_newer(document, SCHEMA, where=where, error=SpecInvalid)
    try:
        return Policy.model_validate(document)
    except ValidationError as error:
        raise _finding(error, where) from error


def render_policy(policy: Policy) -> bytes:
    """The policy as policy.toml. Law: parse_policy(render_policy(p)) == p."""
    document = policy.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_defaults=True)
    return tomli_w.dumps({"schema": policy.schema_version, **document}).encode()


def tightened(policy: Policy | None, spec: Promotion | None) -> Promotion:
    """What counts for a release: of each margin the smaller one, and all channels that either names.

    The operator's `no_worse_than` counts where there is a policy, since another one could be easier to keep to."""
    own = (policy and policy.promotion) or Promotion()
    asked = spec or Promotion()
    margins = {
        name: min(given)
        for name in MARGINS
        if (given := [each for each in (getattr(own, name), getattr(asked, name)) if each is not None])
    }
    ruled = own != Promotion()
    return Promotion(
        no_worse_than=(own.no_worse_than if ruled else asked.no_worse_than) or PRODUCTION,
        channels=tuple(sorted(_guarded(own) | _guarded(asked))),
        **margins,
    )


def _guarded(promotion: Promotion) -> set[str]:
    """Naming no channel next to a margin means PRODUCTION, and must not mean less where the other side names some."""
    return set(promotion.channels) or ({PRODUCTION} if promotion.margins else set())


def _finding(error: ValidationError, where: str) -> SpecInvalid:
    findings = error.errors(include_url=False)
    first: Any = findings[0]
    key = key_of(first["loc"])
    what = first["msg"].removeprefix("Value error, ")
    what = PLAIN_WORDS.get(what, what)
    code, what = coded(what)
    plain = first["type"] not in ("missing", "extra_forbidden") and not isinstance(first["input"], dict | list)
    return SpecInvalid(
        f"{code} {key}: {what}" if code else f"{key}: {what}",
        where=where,
        got=str(first["input"])[:80] if plain else "",
        next=f"and {len(findings) - 1} more" if len(findings) > 1 else "",
    )
