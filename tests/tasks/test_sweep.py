"""What runs leave for each other goes away; releases, and what a run may still need, stay."""

from __future__ import annotations

import os
import time

from infra.workshop import workshop
from packhouse.digest import digest_bytes
from tasks.sweep import KEEP_S, sweep


def put(key: str, age_s: float) -> None:
    shop = workshop()
    shop.store.put(key, b"x", digest=digest_bytes(b"x"))
    path = shop.settings.home / "store" / key
    os.utime(path, (time.time() - age_s,) * 2)


def test_what_is_old_goes_and_all_else_stays(home):
    put("_work/runs/old.json", KEEP_S + 60)
    put("_work/sha256/abc/weights.safetensors", KEEP_S + 60)
    put("_work/runs/new.json", KEEP_S - 60)
    put("model/releases/abc/manifest.json", 10 * KEEP_S)
    assert sweep.fn() == 2
    assert [stat.key for stat in workshop().store.list()] == [
        "_work/runs/new.json",
        "model/releases/abc/manifest.json",
    ]
    assert sweep.fn() == 0
