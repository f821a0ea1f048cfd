"""OpenStack Swift with its S3 interface, one replica on loopback: the store that breaks promises honestly.

It has no compare-and-swap (501), its put-if-absent lets several writers win, and it does check a declared sha256.
"""

from __future__ import annotations

import getpass
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.servers.place import Endpoint, Server, answers, free_ports, installed, must_run, running, scratch, wait_until

_COMMON = """
[DEFAULT]
bind_ip = 127.0.0.1
bind_port = {port}
workers = 0
swift_dir = {home}
user = {user}
log_level = WARNING
"""
_STORAGE = """
devices = {home}/dev
mount_check = false
fallocate_reserve = 1%
[pipeline:main]
pipeline = {kind}-server
[app:{kind}-server]
use = egg:swift#{kind}
allow_versions = true
"""
_PIPELINE = ("catch_errors", "gatekeeper", "healthcheck", "listing_formats", "bulk", "s3api", "tempauth", "copy", "slo")
_PROXY = """
[pipeline:main]
pipeline = {pipeline} proxy-server
[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
allow_account_management = true
{filters}
"""
_SETTINGS = {
    "s3api": "location = us-east-1\ns3_acl = false\ndns_compliant_bucket_names = true",
    "tempauth": "user_test_tester = testing .admin",
}
_RING = """
[swift-hash]
swift_hash_path_suffix = ci-suffix
swift_hash_path_prefix = ci-prefix
[storage-policy:0]
name = gold
default = yes
[swift-constraints]
max_file_size = 5368709122
"""
_KINDS = ("object", "container", "account")


@contextmanager
def swift() -> Iterator[Endpoint]:
    """A fresh, empty one, about 5 s (and about 10 s of pip the first time)."""
    programs = installed("swift", _install) / "bin"
    with scratch("swift") as home, ExitStack() as servers:
        (home / "dev/d1").mkdir(parents=True)
        (home / "swift.conf").write_text(_RING)
        *ports, proxy_port = free_ports(len(_KINDS) + 1)
        for kind, port in zip(_KINDS, ports, strict=True):
            _make_ring(programs, home, kind, port)
            _configure(home, kind, port, _STORAGE.format(home=home, kind=kind))
        _configure(home, "proxy", proxy_port, _proxy_settings())
        # The proxy shuns a server that did not answer once, so it comes last.
        for kind, port in zip((*_KINDS, "proxy"), (*ports, proxy_port), strict=True):
            program = [programs / "python", programs / f"swift-{kind}-server", home / f"{kind}.conf"]
            command: list[str | Path] = ["env", f"SWIFT_DIR={home}", *program]
            server = servers.enter_context(running(command, log=home / f"{kind}.log"))
            _wait_for(kind, port, server)
        yield Endpoint(f"http://127.0.0.1:{proxy_port}", "test:tester", "testing", version=_version(programs))


def _wait_for(kind: str, port: int, server: Server) -> None:
    url = f"http://127.0.0.1:{port}/healthcheck"
    wait_until(lambda: answers(url), what=f"swift-{kind}-server", server=server, timeout_s=60)


def _install(folder: Path) -> None:
    must_run([sys.executable, "-m", "venv", folder], why="a virtual environment for Swift", timeout_s=120)
    must_run([folder / "bin/python", "-m", "pip", "install", "-q", "swift"], why="pip install swift", timeout_s=600)


def _version(programs: Path) -> str:
    code = "from importlib.metadata import version; print('swift', version('swift'))"
    return must_run([programs / "python", "-c", code], why="asking Swift's version", timeout_s=30).strip()


def _make_ring(programs: Path, home: Path, kind: str, port: int) -> None:
    builder = home / f"{kind}.builder"
    steps = [["create", "8", "1", "0"], ["add", f"r1z1-127.0.0.1:{port}/d1", "1"], ["rebalance"]]
    for step in steps:
        program = [programs / "python", programs / "swift-ring-builder", builder]
        must_run([*program, *step], why=f"swift-ring-builder {step[0]}", timeout_s=60)


def _proxy_settings() -> str:
    filters = [f"[filter:{name}]\nuse = egg:swift#{name}\n{_SETTINGS.get(name, '')}" for name in _PIPELINE]
    return _PROXY.format(pipeline=" ".join(_PIPELINE), filters="\n".join(filters))


def _configure(home: Path, name: str, port: int, settings: str) -> None:
    common = _COMMON.format(port=port, home=home, user=getpass.getuser())
    (home / f"{name}.conf").write_text(common + settings)
