"""Writes docs/errors.md and the generated parts of all other pages."""

from __future__ import annotations

from tests.support import error_codes
from tests.support.docs.pages import DOCS, blocks, filled

error_codes.PAGE.write_text(error_codes.page())
for page in sorted(DOCS.glob("*.md")):
    text = page.read_text()
    if (new := filled(text, blocks())) != text:
        page.write_text(new)
