"""What is to be written: bytes, or a file on this machine."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from packhouse.digest import chunks
from packhouse.errors import NotFound, Unavailable


@dataclass(frozen=True)
class Body:
    """A readable stream at its beginning, and the number of bytes that it had when it was opened."""

    file: BinaryIO
    size: int

    def chunks(self) -> Iterator[bytes]:
        return chunks(self.file)


@contextmanager
def opened(body: bytes | Path) -> Iterator[Body]:
    """Raises NotFound or Unavailable where the file cannot be read."""
    with io.BytesIO(body) if isinstance(body, bytes) else _open(body) as file:
        size = len(body) if isinstance(body, bytes) else os.fstat(file.fileno()).st_size
        yield Body(file, size)


def _open(path: Path) -> BinaryIO:
    try:
        return path.open("rb", buffering=0)
    except FileNotFoundError as error:
        raise NotFound("PH-0301 no such file to store", where=str(path)) from error
    except OSError as error:
        raise Unavailable(f"PH-0302 the file to store cannot be read ({error.strerror})", where=str(path)) from error
