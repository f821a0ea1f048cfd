"""What this run does with servers, by the variable PACKHOUSE_TEST_SERVERS.

`required`: a server that cannot run fails its tests. `none`: nothing may start one. Else its tests are skipped.
"""

from __future__ import annotations

import os


def servers() -> str:
    return os.environ.get("PACKHOUSE_TEST_SERVERS", "")


def refuse_if_unwanted(what: str, *, mark: str) -> None:
    """Raises AssertionError in the mode without servers."""
    if servers() == "none":
        raise AssertionError(f"`make check` starts no server, and this test starts {what}: mark it @pytest.mark.{mark}")
