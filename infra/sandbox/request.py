"""A job and its limits, as the sandbox names them and the fork server carries them out. Plain JSON on the way."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

# how the libraries word a failed allocation
OUT_OF_MEMORY = ("can't allocate memory", "bad_alloc", "bad allocation", "Failed to allocate memory", "out of memory")


@dataclass(frozen=True)
class Limits:
    """What one job may use.

    wall_s: seconds from the fork to the end. memory_bytes: private memory on top of what the warm server had, as
    writable mappings (RLIMIT_DATA) and as resident pages. file_bytes: the largest single file it may write.
    cpu_threads: torch's threads inside; ONNX Runtime sessions are told theirs by the job.
    """

    wall_s: float = 900.0
    memory_bytes: int = 8 * 1024**3
    file_bytes: int = 16 * 1024**3
    cpu_threads: int = 1

    @property
    def memory(self) -> str:
        return f"{self.memory_bytes // 1024**2:,} MiB"


@dataclass(frozen=True)
class Request:
    """One job as the parent names it; plain JSON on the way to the server.

    readable, code: see lockdown.confine. require: measures without which the job must not start; omit: measures
    to leave out.
    """

    job: str
    arguments: dict[str, Any]
    workdir: str
    limits: Limits
    readable: tuple[str, ...] = ()
    code: tuple[str, ...] = ()
    require: tuple[str, ...] = ()
    omit: tuple[str, ...] = ()
    cuda: bool = False

    def to_json(self) -> bytes:
        """Raises ValueError on NaN and infinity, TypeError on what JSON has not."""
        return json.dumps(asdict(self), allow_nan=False).encode()

    @classmethod
    def from_json(cls, text: bytes) -> Request:
        fields = json.loads(text)
        return cls(**{**fields, "limits": Limits(**fields["limits"])})
