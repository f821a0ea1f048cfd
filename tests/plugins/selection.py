"""Which tests start servers. With PACKHOUSE_TEST_SERVERS=none (`make check`) they are left out, and nothing starts one.

A test is marked by the fixtures that it uses. One that starts a server in its own body must be marked by hand: in
this mode, every start of a server or of a sandbox is an error that names the missing mark.
"""

from __future__ import annotations

import pytest

from tests.servers.mode import refuse_if_unwanted, servers

SERVERS = frozenset(
    {
        "api", "ceph_server", "closed_registry", "docker", "linear", "mixed", "mlflow_on_postgres_and_s3",
        "mlflow_server", "moto_server", "open_registry", "swift_server",
    }
)  # fmt: skip
"""Fixtures that start a server."""
SANDBOXES = frozenset({"sandbox", "open_sandbox"})
"""Fixtures that start a fork server, whose children export models."""
MAKERS = frozenset({"release", "onnx_release", "other_release"})
"""Fixtures that export models in this process, which takes seconds."""
LEFT_OUT = ("flow", "server", "sandbox", "slow", "long")


def pytest_configure(config: pytest.Config) -> None:
    """tests.servers.place refuses the servers; this refuses the sandboxes."""
    if servers() == "none":
        import infra.sandbox.client

        infra.sandbox.client._Server.__init__ = _refuse  # type: ignore[assignment, method-assign]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        used = frozenset(getattr(item, "fixturenames", ()))
        for mark, fixtures in (("server", SERVERS), ("sandbox", SANDBOXES), ("slow", MAKERS)):
            if used & fixtures:
                item.add_marker(mark)
    if servers() == "none":
        _deselect(config, items)


def _deselect(config: pytest.Config, items: list[pytest.Item]) -> None:
    left_out = [item for item in items if any(item.get_closest_marker(mark) for mark in LEFT_OUT)]
    config.hook.pytest_deselected(items=left_out)
    gone = set(left_out)
    items[:] = [item for item in items if item not in gone]


def _refuse(*_: object) -> None:
    refuse_if_unwanted("a sandbox", mark="sandbox")
