"""Files that have their name once all of them is on disk, whatever was killed when."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

TEMPORARY = re.compile(r"\.[A-Za-z0-9._@-]+\.\d+-[0-9a-f]{8}")
"""The names that files have until then, and that a killed writer leaves behind."""


def write(target: Path, chunks: Iterable[bytes]) -> None:
    """Replaces what was there. Raises OSError, and what the chunks raise; then nothing has changed."""
    beside = target.with_name(f".{target.name}.{os.getpid()}-{os.urandom(4).hex()}")
    try:
        with beside.open("xb") as file:
            for chunk in chunks:
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(target)
    finally:
        beside.unlink(missing_ok=True)
