"""Types of keys that the spec and its preprocessing share."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

TensorName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,62}$")]
Number = Annotated[float, Field(strict=True)]
Flag = Annotated[bool, Field(strict=True)]
CHANNEL = r"[a-z0-9][a-z0-9-]{0,62}"
ChannelName = Annotated[str, Field(pattern=f"^{CHANNEL}$")]
PRODUCTION = "production"
"""The channel that a spec can guard with `approve = true`, and that a promotion policy guards by default."""


class DType(StrEnum):
    FLOAT32 = "float32"
    FLOAT64 = "float64"
    FLOAT16 = "float16"
    INT64 = "int64"
    INT32 = "int32"
    INT8 = "int8"
    UINT8 = "uint8"
    BOOL = "bool"

    @property
    def floating(self) -> bool:
        return self.value.startswith("float")

    @property
    def integer(self) -> bool:
        return not self.floating and self is not DType.BOOL


class Misplaced(ValueError):
    """A finding about keys that do not fit together. path: the one to look at, below the table that was checked."""

    def __init__(self, message: str, *path: int | str) -> None:
        super().__init__(message)
        self.path = path
