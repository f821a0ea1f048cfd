"""Guarding: whether a release may move a channel, by the operator's policy in the store and the release's spec."""

from __future__ import annotations

from packhouse.errors import NotFound, Refused
from packhouse.release.store_layout import policy_key
from packhouse.spec.policy import Policy, Promotion, parse_policy, tightened
from packhouse.store import Store

MAX_POLICY_BYTES = 64 * 1024


def read_policy(store: Store, model: str) -> Policy | None:
    """None where the operator has written none. Raises SpecInvalid, LimitExceeded, and the store's errors."""
    key = policy_key(model)
    try:
        data, _ = store.get(key, limit=MAX_POLICY_BYTES)
    except NotFound:
        return None
    return parse_policy(data, where=key)


def insist(store: Store, model: str, channel: str, spec: Promotion | None) -> None:
    """Before a channel moves forward. This version reads margins and can not compare yet, so it lets no release pass
    that would have to be compared. spec: the `[promotion]` of the release's spec.

    Raises Refused: margins guard the channel. SpecInvalid: the policy is none."""
    promotion = tightened(read_policy(store, model), spec)
    if promotion.guards(channel):
        raise Refused(
            "PH-0149 is guarded by margins, which this version of packhouse can not compare yet",
            where=f"{model}@{channel}",
            got=", ".join(f"{name} = {margin:g}" for name, margin in promotion.margins.items()),
            next=f"take the margins out of {policy_key(model)} and of the spec's [promotion], or move another channel",
        )
