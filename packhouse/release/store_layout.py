"""The layout of a store: which objects there are, who writes and who reads them, and how long they are kept.

One table, from which every key is made and by which every key is recognised. docs/contracts.md shows the same table.
What fits no row is nobody's: it is named, and never deleted.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

from packhouse.spec.types import CHANNEL

DAY_S = 24 * 3600.0
NAME = r"[a-z0-9][a-z0-9-]{0,62}"
"""Of a model. None begins with `_`, so that the store's own folders lie beside the models."""
ID = r"[0-9a-f]{32}"


@dataclass(frozen=True)
class Area:
    """One row of the table. objects: templates of keys, as the table shows them; one that ends in `/` has all below it.
    expires_s: seconds after which an object goes away by itself, by the store's clock; None: it does not."""

    objects: tuple[str, ...]
    written_by: str
    read_by: str
    kept: str
    expires_s: float | None = None

    def key(self, template: int = 0, **parts: str) -> str:
        """The key of an object, or the folder of many. parts: model, id, name, as far as the template has them."""
        key = self.objects[template]
        for name, part in parts.items():
            key = key.replace(f"<{name}>", part)
        return key


RELEASES = Area(("<model>/releases/<id>/",), "workers", "everyone", "until it is deleted by policy")
CHANNELS = Area(
    ("<model>/channels/<name>.json", "<model>/channels/<name>.sig"),
    "workers, `packhouse promote` and `rollback`",
    "everyone",
    "as long as the model",
)
PROOFS = Area(("<model>/proofs/<id>/",), "the audit", "`packhouse history`, auditors", "longer than the release")
HOLDS = Area(("<model>/holds/<id>.json",), "operators", "whatever deletes releases", "until an operator removes it")
TOMBSTONES = Area(
    ("<model>/tombstones/<id>.json",),
    "whatever deletes releases",
    "workers, `packhouse ls` and `verify`",
    "as long as the model",
)
POLICIES = Area(("<model>/policy.toml",), "operators", "workers, `packhouse promote`", "as long as the model")
WORK = Area(("_work/",), "workers", "workers", "seven days", expires_s=7 * DAY_S)
REPORTS = Area(
    ("_reports/",), "workers", "people", "seven days after the run, or as the operator's lifecycle rule says"
)
FLEET = Area(("_fleet/",), "the night", "people, monitoring", "overwritten each night")
RECALLED = Area(("_recalled/",), "operators", "everyone", "for good")

AREAS = (RELEASES, CHANNELS, PROOFS, HOLDS, TOMBSTONES, POLICIES, WORK, REPORTS, FLEET, RECALLED)


@dataclass(frozen=True)
class Place:
    """Where a key lies. model, id, name: as far as its area has them. rest: what stands behind the area's folder."""

    area: Area
    model: str = ""
    id: str = ""
    name: str = ""
    rest: str = ""


_PARTS = {"model": NAME, "id": ID, "name": CHANNEL}


def _pattern(template: str) -> re.Pattern[str]:
    """A folder itself is no object: something stands behind its `/`."""
    text = re.sub(r"<(\w+)>", lambda part: f"(?P<{part[1]}>{_PARTS[part[1]]})", re.sub(r"\.", r"\\.", template))
    return re.compile(text + ("(?P<rest>.+)" if template.endswith("/") else ""))


_PATTERNS = [(area, _pattern(template)) for area in AREAS for template in area.objects]


def place_of(key: str) -> Place | None:
    """The row that the key fits; None: it is nobody's."""
    for area, pattern in _PATTERNS:
        if found := pattern.fullmatch(key):
            return Place(area, **found.groupdict())
    return None


def expired(key: str, age_s: float) -> bool:
    """Whether the key's row says that such an old object goes away by itself."""
    place = place_of(key)
    return place is not None and place.area.expires_s is not None and age_s > place.area.expires_s


def deletable(key: str, *, held: Collection[tuple[str, str]] = ()) -> bool:
    """Whether a policy may delete the object at all: it is part of a release that nobody holds. What a row lets expire
    goes by `expired`; all else is an operator's to delete. held: (model, release) of every hold."""
    place = place_of(key)
    return place is not None and place.area is RELEASES and (place.model, place.id) not in held


def release_key(model: str, release: str, name: str = "") -> str:
    return RELEASES.key(model=model, id=release) + name


def channel_key(model: str, channel: str) -> str:
    return CHANNELS.key(model=model, name=channel)


def signature_key(model: str, channel: str) -> str:
    """Of the signature of a channel."""
    return CHANNELS.key(1, model=model, name=channel)


def proof_key(model: str, release: str, name: str) -> str:
    return PROOFS.key(model=model, id=release) + name


def hold_key(model: str, release: str) -> str:
    return HOLDS.key(model=model, id=release)


def tombstone_key(model: str, release: str) -> str:
    return TOMBSTONES.key(model=model, id=release)


def policy_key(model: str) -> str:
    return POLICIES.key(model=model)


def work_key(name: str) -> str:
    return WORK.key() + name


def report_key(name: str) -> str:
    return REPORTS.key() + name


def fleet_key(name: str) -> str:
    return FLEET.key() + name


def recalled_key(name: str) -> str:
    return RECALLED.key() + name
