"""What runs leave for each other goes away; releases, and what a run may still need, stay."""

from __future__ import annotations

import os
import time

from infra.worker.context import worker_context
from packhouse.digest import digest_bytes
from packhouse.release.store_layout import (
    fleet_key,
    hold_key,
    policy_key,
    recalled_key,
    release_key,
    report_key,
    tombstone_key,
)
from tasks.night.cleanup import KEEP_S, clean_up

ID = "0123456789abcdef" * 2


def put(key: str, age_s: float) -> None:
    shop = worker_context()
    shop.store.put(key, b"x", digest=digest_bytes(b"x"))
    path = shop.settings.home / "store" / key
    os.utime(path, (time.time() - age_s,) * 2)


def test_what_is_old_goes_and_all_else_stays(home):
    put("_work/runs/old.json", KEEP_S + 60)
    put("_work/sha256/abc/weights.safetensors", KEEP_S + 60)
    put("_work/runs/new.json", KEEP_S - 60)
    kept = [
        fleet_key("night.json"),
        recalled_key("list.json"),
        report_key("run/report.html"),
        "_work/runs/new.json",
        "_works/nobodys.json",
        hold_key("model", ID),
        policy_key("model"),
        release_key("model", ID, "manifest.json"),
        tombstone_key("model", ID),
    ]
    for key in kept:
        if key != "_work/runs/new.json":
            put(key, 10 * KEEP_S)
    assert clean_up.fn() == 2
    assert [stat.key for stat in worker_context().store.list()] == sorted(kept)
    assert clean_up.fn() == 0
