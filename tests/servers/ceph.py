"""Ceph's S3 gateway on a monitor and one disk daemon: the reference for conditions and checksums.

No authentication between the daemons, no manager, everything on loopback. Two settings cost a day when they are
missing: without `ms_mon_client_mode = crc` the gateway waits for ever, and without the `rgw_gc` ones deleted space
comes back after two hours only.
"""

from __future__ import annotations

import subprocess
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.servers.chroot import ceph_tree, inside
from tests.servers.place import Endpoint, answers, free_ports, must_run, running, scratch, wait_until

_USER, _SECRET = "cikey", "cisecret"
_CONFIG = """
[global]
fsid = {fsid}
mon_host = v2:127.0.0.1:{mon_port}
auth_cluster_required = none
auth_service_required = none
auth_client_required = none
ms_bind_ipv4 = true
ms_bind_ipv6 = false
ms_mon_client_mode = crc
public_network = 127.0.0.0/8
public_addr = 127.0.0.1
osd_pool_default_size = 1
osd_pool_default_min_size = 1
mon_allow_pool_size_one = true
osd_pool_default_pg_num = 8
osd_pool_default_pg_autoscale_mode = off
mon_max_pg_per_osd = 1000
osd_crush_chooseleaf_type = 0
osd_crush_update_on_start = true
mon_data_avail_warn = 2
mon_data_avail_crit = 1
run_dir = {home}
pid_file = {home}/$name.pid
admin_socket = {home}/$name.asok
log_file = {home}/$name.log
crash_dir = {home}
[mon.a]
mon_data = {home}/mon
[osd]
osd_data = {home}/osd
osd_objectstore = bluestore
bluestore_block_size = 21474836480
osd_memory_target = 1073741824
bluestore_fsck_on_mount = false
[client.rgw]
rgw_frontends = beast endpoint=127.0.0.1:{port}
rgw_run_sync_thread = false
rgw_enable_usage_log = false
rgw_dns_name = localhost
rgw_thread_pool_size = 64
rgw_gc_obj_min_wait = 5
rgw_gc_processor_period = 10
rgw_gc_processor_max_time = 10
"""


class _Cluster:
    """The programs of one cluster, whose data is `home`, a folder of the tree."""

    def __init__(self, tree: Path, home: Path) -> None:
        self.tree, self.home = tree, f"/{home.relative_to(tree)}"

    def command(self, *words: str) -> list[str]:
        return inside(self.tree, "env", f"CEPH_CONF={self.home}/ceph.conf", *words)

    def run(self, *words: str) -> str:
        return must_run(self.command(*words), why=" ".join(words[:3]), timeout_s=60)

    def says(self, text: str, *words: str) -> bool:
        done = subprocess.run(self.command("timeout", "5", *words), capture_output=True, text=True)
        return done.returncode == 0 and text in done.stdout


@contextmanager
def ceph() -> Iterator[Endpoint]:
    """A fresh cluster, about 15 s. The gateway ends first: it would wait for a cluster that is gone."""
    tree = ceph_tree()
    with scratch("ceph", tree / "var/tmp") as home, ExitStack() as daemons:
        cluster = _Cluster(tree, home)
        port = _configure(cluster, home)

        def start(ready: list[str], text: str, *words: str, grace_s: float = 5) -> None:
            log = home / f"{words[0]}.out"
            server = daemons.enter_context(running(cluster.command(*words), log=log, grace_s=grace_s))
            wait_until(lambda: cluster.says(text, *ready), what=words[0], server=server, timeout_s=60)

        start(["ceph", "-s"], "", "ceph-mon", "-f", "-i", "a")
        _make_disk(cluster)
        start(["ceph", "osd", "stat"], "1 up", "ceph-osd", "-f", "-i", "0", grace_s=1)
        gateway = daemons.enter_context(
            running(cluster.command("radosgw", "-f", "-n", "client.rgw"), log=home / "radosgw.out")
        )
        url = f"http://127.0.0.1:{port}"
        wait_until(lambda: answers(url), what="radosgw", server=gateway, timeout_s=90)
        user = ["--uid=ci", "--display-name=ci", f"--access-key={_USER}", f"--secret-key={_SECRET}"]
        cluster.run("radosgw-admin", "user", "create", *user)
        yield Endpoint(url, _USER, _SECRET, version=cluster.run("radosgw", "--version").strip())


def _configure(cluster: _Cluster, home: Path) -> int:
    """Writes the configuration and the monitor's first data. Returns the gateway's port."""
    port, mon_port = free_ports(2)
    fsid = str(uuid.uuid4())
    (home / "ceph.conf").write_text(_CONFIG.format(fsid=fsid, mon_port=mon_port, port=port, home=cluster.home))
    (home / "mon").mkdir()
    (home / "osd").mkdir()
    map_file, address = f"{cluster.home}/monmap", f"[v2:127.0.0.1:{mon_port}]"
    cluster.run("monmaptool", "--create", "--fsid", fsid, "--addv", "a", address, map_file)
    cluster.run("ceph-mon", "--mkfs", "-i", "a", "--monmap", map_file)
    return port


def _make_disk(cluster: _Cluster) -> None:
    disk = str(uuid.uuid4())
    cluster.run("ceph", "osd", "new", disk)
    cluster.run("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", disk)
