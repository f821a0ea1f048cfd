"""The command without Python's start ends as the command does, and says the same."""

from __future__ import annotations

import pytest

from tests.flows.test_bad_input import packhouse

pytestmark = pytest.mark.flow


@pytest.mark.parametrize("arguments", [("ls",), ("sign", "linear@latest"), ("promote",)], ids=lambda given: given[0])
def test_a_command_without_the_start_ends_as_one_of_its_own(home, command, arguments):
    real, warm = packhouse(*arguments, home=home), command(*arguments, home=home)
    assert (warm.returncode, warm.stdout, warm.stderr) == (real.returncode, real.stdout, real.stderr)
    assert real.returncode in (1, 3, 64)
