"""Generated blocks of pages: what stands between the marks `<!-- generated: NAME -->` and `<!-- end -->`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from tests.support.docs import api, deployments, formats, settings, spec

DOCS = Path(__file__).resolve().parents[3] / "docs"
BLOCK = re.compile(r"<!-- generated: (?P<name>[^\n]+) -->\n(?P<text>.*?)<!-- end -->\n", re.DOTALL)


@cache
def blocks() -> dict[str, str]:
    """Every block that there is: name -> Markdown."""
    sources = (settings, spec, formats, deployments, api)
    return {name: text for source in sources for name, text in source.blocks().items()}


def filled(page: str, known: Mapping[str, str]) -> str:
    """The page with its blocks written anew. Raises KeyError: a mark names a block that there is not."""

    def block(found: re.Match[str]) -> str:
        return f"<!-- generated: {found['name']} -->\n{known[found['name']]}\n<!-- end -->\n"

    return BLOCK.sub(block, page)
