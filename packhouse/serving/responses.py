"""What a route answers, ready to be sent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from packhouse.serving.errors import RequestRefused

JSON = "application/json"
BINARY = "application/octet-stream"


@dataclass(frozen=True)
class Answer:
    body: bytes
    media_type: str = JSON
    headers: Mapping[str, str] = field(default_factory=dict)


def dump(document: Any) -> bytes:
    """JSON; numpy arrays as lists, each number in the fewest digits that give it back."""
    return orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)


def parse(data: bytes | memoryview, limit: int) -> dict[str, Any]:
    """A JSON object of at most `limit` bytes. orjson refuses NaN, infinity and a depth of more than 1,024. Raises
    RequestRefused."""
    if len(data) > limit:
        got, want = f"{len(data):,} bytes", f"at most {limit:,}"
        raise RequestRefused("PH-0456 too much JSON", got=got, want=want, next="send tensors as binary data")
    try:
        document = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise RequestRefused(
            "PH-0458 the body is not JSON", got=f"{error.msg}: line {error.lineno} column {error.colno}"
        ) from error
    if not isinstance(document, dict):
        raise RequestRefused("PH-0457 the body is not a JSON object")
    return document


def refuse_others(document: Mapping[str, Any], known: frozenset[str], where: str = "") -> None:
    if extra := sorted(document.keys() - known):
        raise RequestRefused("PH-0455 unknown key", where=where, got=extra[0][:80], want=", ".join(sorted(known)))
