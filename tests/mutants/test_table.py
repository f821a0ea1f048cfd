"""The table of planted faults fits today's code. The faults themselves are run by `make mutants`."""

from __future__ import annotations

import pytest

from tests.mutants.rows import ROOT, Mutant, has_test, mutants

ROWS = mutants()
LAYERS = ("packhouse", "infra", "tasks", "flows")


@pytest.mark.parametrize("mutant", ROWS, ids=lambda mutant: mutant.id)
def test_a_fault_can_be_planted_and_its_tests_exist(mutant: Mutant):
    planted = mutant.planted(ROOT)
    assert planted != (ROOT / mutant.file).read_text()
    compile(planted, mutant.file, "exec")
    assert mutant.tests
    assert [test for test in mutant.tests if not has_test(test)] == []


def test_there_are_thirty_faults_one_a_module_in_every_layer():
    files = [mutant.file for mutant in ROWS]
    assert len(files) >= 30
    assert len(set(files)) == len(files)
    assert {file.partition("/")[0] for file in files} == set(LAYERS)
    assert len({mutant.id for mutant in ROWS}) == len(ROWS)


def test_a_text_that_is_gone_or_not_unique_is_named(tmp_path):
    (tmp_path / "module.py").write_text("a = 1\na = 1\n")
    row = Mutant(id="lost", file="module.py", find="b = 1", replace="", promise="", tests=())
    with pytest.raises(ValueError, match="mutant lost: its text occurs 0 times in module"):
        row.planted(tmp_path)
    twice = Mutant(id="twice", file="module.py", find="a = 1", replace="", promise="", tests=())
    with pytest.raises(ValueError, match="mutant twice: its text occurs 2 times"):
        twice.planted(tmp_path)


def test_a_test_that_is_not_there_is_not_taken_for_one():
    here = "tests/mutants/test_table.py"
    assert has_test(f"{here}::test_a_test_that_is_not_there_is_not_taken_for_one")
    assert has_test(f"{here}::test_a_fault_can_be_planted_and_its_tests_exist[some case]")
    assert not has_test(f"{here}::test_of_another_name")
    assert not has_test("tests/mutants/test_of_no_file.py::test_x")
