"""The code digest: what code does changes it, how it is written does not; imports are found without running them."""

from __future__ import annotations

import ast
import gc
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from packhouse.architectures.code_digest import code_digest, imported_names, module_digests, parsed, tree_digest

CODE = '''\
"""A module."""

import os

LIMIT = 3
"""What it is."""


class Cell:
    """A cell."""

    width: int = 2

    def area(self, height):
        """Its area."""
        return self.width * height  # in cells


def text(value):
    # why
    return f"{value!r:>{LIMIT}} of {os.sep}"
'''


def digest(source: str) -> str:
    return tree_digest(parsed(source.encode()))


@pytest.mark.parametrize(
    "old, new",
    [
        ("# why", "# because"),
        ("    # why\n", "\n\n"),
        ('"""A module."""', '"""Another text.\n\nOf two parts."""'),
        ('    """A cell."""\n', ""),
        ('"""What it is."""', ""),
        ('        """Its area."""\n', '        """Its area,\n        in cells."""\n'),
        ("LIMIT = 3", "LIMIT = (\n    3\n)"),
        ("LIMIT = 3", "LIMIT = 0x3"),
        ('f"{value!r:>{LIMIT}} of {os.sep}"', """f'{value!r:>{LIMIT}}' ' of ' f'{os.sep}'"""),
        ("\n", "\r\n"),
    ],
)
def test_how_code_is_written_does_not_change_its_digest(old, new):
    assert old in CODE
    assert CODE.replace(old, new) != CODE
    assert digest(CODE.replace(old, new)) == digest(CODE)


@pytest.mark.parametrize(
    "old, new",
    [
        ("LIMIT = 3", "LIMIT = 4"),
        ("LIMIT = 3", "LIMIT = 3.0"),
        ("LIMIT = 3", "LIMIT = True"),
        ("LIMIT = 3", "LIMIT = None"),
        ("LIMIT = 3", "LIMIT = '3'"),
        ("LIMIT = 3", "LIMIT = b'3'"),
        ("width: int = 2", "width: float = 2"),
        ("self.width * height", "self.width + height"),
        ("self.width * height", "height * self.width"),
        ("!r:", "!s:"),
        (" of ", " or "),
        ("def text(value)", "def text(*, value)"),
        ("def text(value)", "async def text(value)"),
        ("def text(value)", "@staticmethod\ndef text(value)"),
        ("import os", "import os as os"),
        ("class Cell:", "class Cell(dict):"),
        ("LIMIT = 3\n", "LIMIT = 3  # type: float\n"),
    ],
)
def test_what_code_does_changes_its_digest(old, new):
    assert old in CODE
    assert digest(CODE.replace(old, new)) != digest(CODE)


@pytest.mark.parametrize("empty", ["", "# a comment", '"""A docstring."""', "pass"])
def test_a_docstring_alone_is_as_nothing(empty):
    assert digest(empty) == digest("")
    assert digest(f"if x:\n    pass\n    {empty}") == digest("if x:\n    pass")
    assert digest('class A(B):\n    """It."""') == digest("class A(B):\n    pass") == digest("class A(B): ...")


def test_text_that_is_a_value_is_no_docstring():
    assert digest('def f():\n    """a"""\n    return "a"\n') != digest('def f():\n    """a"""\n    return "b"\n')


def test_nothing_in_a_list_or_a_mapping_is_not_left_out():
    assert digest("x = [None, 1]") != digest("x = [1]")
    assert digest("x = {**a, None: b}") != digest("x = {None: a, **b}")


@pytest.mark.parametrize(
    "source, names",
    [
        ("import a.b", {"a.b"}),
        ("import a as b, c", {"a", "c"}),
        ("from a import b", {"a", "a.b"}),
        ("from . import b", {"here.inner", "here.inner.b"}),
        ("from ..other import b", {"here.other", "here.other.b"}),
        ("def f():\n    if x:\n        import a", {"a"}),
        ("try:\n    import a\nexcept ImportError:\n    import b", {"a", "b"}),
        ("match x:\n    case 1:\n        import a", {"a"}),
        ("if TYPE_CHECKING:\n    import a", set()),
        ("if typing.TYPE_CHECKING:\n    import a\nelse:\n    import b", {"b"}),
        ("if not TYPE_CHECKING:\n    import a", {"a"}),
    ],
)
def test_imports_are_found_in_the_source(source, names):
    assert set(imported_names(ast.parse(source), "here.inner")) == names


@pytest.fixture
def project(tmp_path):
    files = {
        "ours/__init__.py": "",
        "ours/start.py": "import json\nfrom ours import near\ndef f():\n    from ours.deep.leaf import LEAF\n",
        "ours/near.py": "from ours.apart import end\nfrom elsewhere import far\n",
        "ours/deep/__init__.py": "from ours import initial",
        "ours/deep/leaf.py": "LEAF = 1",
        "ours/initial.py": "",
        "ours/apart/__init__.py": "",
        "ours/apart/end.py": "import ours.beyond",
        "ours/beyond.py": "",
        "ours/unused.py": "",
        "elsewhere/__init__.py": "",
        "elsewhere/far.py": "",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_modules_are_followed_with_the_packages_that_they_lie_in(project):
    found = module_digests(project, ["ours.start"], packages={"ours"}, ends={"ours.apart.end"})
    assert list(found) == [
        "ours", "ours.apart", "ours.deep", "ours.deep.leaf", "ours.initial", "ours.near", "ours.start",
    ]  # fmt: skip


def test_a_change_in_a_module_that_is_reached_changes_the_digest_and_the_folder_does_not(project):
    def whole(root):
        return code_digest(module_digests(root, ["ours.start"], packages={"ours"}))

    before = whole(project)
    (project / "ours" / "unused.py").write_text("x = 1")
    assert whole(project.rename(project.with_name("moved"))) == before
    moved = project.with_name("moved")
    (moved / "ours" / "deep" / "leaf.py").write_text("LEAF = 2")
    assert whole(moved) != before


def test_a_start_that_is_not_there_is_an_error(project):
    with pytest.raises(ModuleNotFoundError, match=r"no module ours\.gone"):
        module_digests(project, ["ours.gone"], packages={"ours"})


@pytest.fixture
def crowded():
    """Threads take turns within a parse too: Python runs a callback at each collection, and collects often."""
    interval, threshold = sys.getswitchinterval(), gc.get_threshold()

    def busy(*_: object) -> None:
        sum(range(300))

    gc.callbacks.append(busy)
    gc.set_threshold(50)
    sys.setswitchinterval(1e-6)
    yield
    gc.callbacks.remove(busy)
    sys.setswitchinterval(interval)
    gc.set_threshold(*threshold)


def test_threads_may_read_code_at_the_same_time(crowded):
    source = CODE.encode() * 20
    with ThreadPoolExecutor(8) as pool:
        trees = list(pool.map(lambda _: tree_digest(parsed(source)), range(200)))
    assert set(trees) == {digest(CODE * 20)}
