"""Tables of the settings of a worker and of the model server."""

from __future__ import annotations

from pydantic.fields import FieldInfo

from tests.support.docs import fields
from tests.support.docs.markdown import linked, table
from tests.support.docs.places import ServingSettings, Settings

GROUPS = {
    "places": ("home",),
    "runs": ("models",),
    "child processes": ("children",),
    "gpu": ("cuda_pool",),
    "mlflow": ("mlflow_uri",),
    "images": ("runtime_image",),
    "signatures": ("signing_key", "sign_wait_s"),
}
"""Groups of a worker's settings, each with its first fields. A group ends where the next one begins."""
HEAD = ("variable", "type", "default", "description")


def blocks() -> dict[str, str]:
    prefix = Settings.model_config["env_prefix"]
    groups: dict[str, list[tuple[str, ...]]] = {}
    first = {field: group for group, starts in GROUPS.items() for field in starts}
    group = ""
    for name, field in Settings.model_fields.items():
        group = first.get(name, group)
        groups.setdefault(group, []).append(_row(f"{prefix}{name.upper()}", field, lists="JSON "))
    serving = [_row(str(field.alias), field) for field in ServingSettings.model_fields.values()]
    tables = {f"settings: {group}": table(HEAD, rows) for group, rows in groups.items()}
    return {**tables, "settings: server": table(HEAD, serving)}


def _row(name: str, field: FieldInfo, lists: str = "") -> tuple[str, ...]:
    """lists: what stands before the type of a list."""
    if not field.description:
        raise ValueError(f"{name} has no description: Field(description=...)")
    kind = fields.type_of(field)
    kind = f"{lists}{kind}" if kind.startswith("list") else kind
    return f"`{name}`", kind, fields.default_of(field), linked(field.description)
