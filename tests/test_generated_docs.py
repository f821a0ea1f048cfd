"""Pages that are written from the code are what the code says: `make docs` writes them."""

from __future__ import annotations

import tomllib
from collections import Counter
from pathlib import Path
from typing import Annotated, Literal

import griffe
import pytest
from pydantic import BaseModel, Field, SecretStr

from tests.support.docs import api, fields, spec
from tests.support.docs.markdown import linked, table
from tests.support.docs.pages import BLOCK, DOCS, blocks, filled

ROOT = Path(__file__).resolve().parent.parent
PAGES = [page for page in sorted(DOCS.glob("*.md")) if BLOCK.search(page.read_text())]


@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
def test_page_is_what_the_code_says(page):
    text = page.read_text()
    assert text == filled(text, blocks()), "`make docs` writes it"


def test_every_block_is_on_one_page():
    names = Counter(found["name"] for page in PAGES for found in BLOCK.finditer(page.read_text()))
    assert names == Counter(blocks().keys())


def test_block_that_differs_is_written_anew_and_the_rest_is_kept():
    page = "before\n<!-- generated: a -->\nold\n<!-- end -->\nbetween\n<!-- generated: b -->\n<!-- end -->\n"
    new = filled(page, {"a": "new\nlines", "b": "text"})
    assert new == (
        "before\n<!-- generated: a -->\nnew\nlines\n<!-- end -->\nbetween\n<!-- generated: b -->\ntext\n<!-- end -->\n"
    )
    assert filled(new, {"a": "new\nlines", "b": "text"}) == new
    with pytest.raises(KeyError, match="b"):
        filled(page, {"a": "new"})


def test_docstrings_of_the_reference_are_checked_by_ruff():
    ignored = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["ruff"]["lint"]["per-file-ignores"]
    (pattern,) = [files for files, rules in ignored.items() if rules == ["D"]]
    checked = set(pattern.removeprefix("!{").removesuffix("}.py").split(","))
    assert {module.replace(".", "/") for module in api.modules()} <= checked
    assert all((ROOT / f"{path}.py").is_file() for path in checked)


class Example(BaseModel):
    """A model with fields of each kind."""

    count: Annotated[int, Field(ge=1, le=64)] = 8
    seconds: Annotated[float, Field(gt=0)] = 0.5
    memory: Annotated[int, Field(ge=1, lt=2**63)] = 3 * 1024**2
    names: tuple[str, ...] = ()
    shape: tuple[Annotated[int, Field(ge=1)] | str, ...]
    range: tuple[float, float] | None = None
    secret: SecretStr = SecretStr("")
    kind: Literal["a", "b"] | None = None
    table: dict[str, int] = {}
    made: list[int] = Field(default_factory=list)
    """A list."""


@pytest.mark.parametrize(
    "name, kind, default",
    [
        ("count", "integer, 1 to 64", "8"),
        ("seconds", "number, above 0", "0.5"),
        ("memory", "integer, at least 1", "3145728 (3 MiB)"),
        ("names", "list of text", "none"),
        ("shape", "list of integers or text", "required"),
        ("range", "two numbers", "none"),
        ("secret", "secret text", "none"),
        ("kind", "`a` or `b`", "none"),
        ("table", "table", "none"),
    ],
)
def test_type_limits_and_default_of_a_field_are_read_off_it(name, kind, default):
    field = Example.model_fields[name]
    assert (fields.type_of(field), fields.default_of(field)) == (kind, default)


def test_default_that_is_computed_points_to_the_description():
    assert fields.default_of(Example.model_fields["made"]) == "see description"


def test_description_of_a_key_is_the_docstring_below_it():
    assert spec.descriptions(Example) == {"made": "A list."}


def test_a_cell_is_one_line_and_has_no_bar():
    assert table(("a",), [("x |\n y",)]) == "| a |\n| --- |\n| x \\| y |"


def test_page_that_a_text_names_becomes_a_link():
    assert linked("See docs/parity.md#on-a-gpu.") == "See [parity.md](parity.md#on-a-gpu)."


def function(docstring: str) -> griffe.Function:
    body = "\n".join(f"    {line}" for line in docstring.splitlines())
    code = f'def f(a: int, *rest: str, b: int = 1) -> str:\n    """Does it.\n\n{body}\n    """\n'
    found = griffe.visit("example", filepath=Path("example.py"), code=code)["f"]
    assert isinstance(found, griffe.Function)
    return found


ARGS = "Args:\n    a: One.\n    *rest: Others.\n    b: Two.\n"


def test_reference_of_a_function_has_each_argument_and_what_it_returns():
    text = "\n".join(api.function(function(f"{ARGS}\nReturns:\n    First line.\n    Second line."), "f"))
    assert "f(\n    a: int,\n    *rest: str,\n    b: int = 1,\n) -> str" in text
    assert "| `*rest` | `str` | none | Others. |" in text
    assert "**Returns**:\nFirst line.\nSecond line." in text


@pytest.mark.parametrize(
    "docstring, wrong",
    [
        ("Args:\n    a: One.\n\nReturns:\n    It.", "the parameters are"),
        (f"{ARGS}    c: None such.\n\nReturns:\n    It.", "the parameters are"),
        (ARGS, "Returns does not fit"),
    ],
    ids=["argument missing", "argument unknown", "no Returns"],
)
def test_docstring_that_does_not_fit_the_signature_is_refused(docstring, wrong):
    with pytest.raises(ValueError, match=wrong):
        api.function(function(docstring), "f")
