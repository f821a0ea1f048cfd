"""Starts one test server for use by hand, until Ctrl-C: python -m tests.servers ceph|swift|moto"""

from __future__ import annotations

import signal
import sys
import time
from contextlib import suppress

from tests.servers.ceph import ceph
from tests.servers.moto import moto
from tests.servers.swift import swift

SERVERS = {"ceph": ceph, "swift": swift, "moto": moto}

if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1] not in SERVERS:
        sys.exit(__doc__)
    began = time.monotonic()
    with SERVERS[sys.argv[1]]() as server:
        print(f"ready after {time.monotonic() - began:.1f} s: {server}", flush=True)
        with suppress(KeyboardInterrupt):
            signal.pause()
