"""Settings of the server, from environment variables. docs/serving.md lists them."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from packhouse.artifact import Digest, Frozen
from packhouse.digest import MiB
from packhouse.errors import SpecInvalid
from packhouse.formats.processors import available
from packhouse.release.manifest import FormatName

Count = Annotated[int, Field(ge=1, le=1024)]
Bytes = Annotated[int, Field(ge=1024, le=2**34)]
Seconds = Annotated[float, Field(gt=0, le=86_400)]


class Choice(StrEnum):
    """auto: INT8 where the release has it and this processor answers as the judged one did, else fp32."""

    AUTO = "auto"
    ONNX = "onnx"
    ONNX_INT8 = "onnx-int8"


class Log(StrEnum):
    """info: also a line for each request. warning: only what went wrong."""

    INFO = "info"
    WARNING = "warning"


class ServingSettings(Frozen):
    """folder: the release. manifest: the digest that its manifest must have; None: any. trust: files with the keys of
    which one must have signed it, parted by `:`; empty: nobody is asked for. threads: that one run computes with. runs:
    requests that are computed at a time. queue: requests that may wait besides. body_s: for a body to arrive. grace_s:
    for what is under way when the server is told to stop. golden: whether the golden cases are replayed before the
    server is ready. merge_rows: rows of waiting requests that are computed together at most; 1: each request for
    itself. merge_ms: how long a run waits for more of them."""

    folder: Annotated[Path, Field(alias="MODEL_DIR")] = Path("/models")
    host: Annotated[str, Field(alias="HOST")] = "0.0.0.0"  # noqa: S104 - in a container, whose network is its own
    port: Annotated[int, Field(alias="PORT", ge=0, le=65_535)] = 8080
    manifest: Annotated[Digest | None, Field(alias="PACKHOUSE_MANIFEST_DIGEST")] = None
    trust: Annotated[str, Field(alias="PACKHOUSE_TRUST")] = ""
    choice: Annotated[Choice | FormatName, Field(alias="PACKHOUSE_FORMAT", union_mode="left_to_right")] = Choice.AUTO
    threads: Annotated[Count, Field(alias="PACKHOUSE_THREADS", default_factory=available)]
    runs: Annotated[Count, Field(alias="PACKHOUSE_RUNS")] = 2
    queue: Annotated[int, Field(alias="PACKHOUSE_QUEUE", ge=0, le=100_000)] = 64
    max_body_bytes: Annotated[Bytes, Field(alias="PACKHOUSE_MAX_BODY_BYTES")] = 64 * MiB
    max_json_bytes: Annotated[Bytes, Field(alias="PACKHOUSE_MAX_JSON_BYTES")] = 16 * MiB
    body_s: Annotated[Seconds, Field(alias="PACKHOUSE_BODY_S")] = 30.0
    grace_s: Annotated[Seconds, Field(alias="PACKHOUSE_GRACE_S")] = 20.0
    golden: Annotated[bool, Field(alias="PACKHOUSE_GOLDEN")] = True
    merge_rows: Annotated[int, Field(alias="PACKHOUSE_MAX_BATCH", ge=1, le=65_536)] = 1
    merge_ms: Annotated[float, Field(alias="PACKHOUSE_BATCH_MS", ge=0, le=1000)] = 0.0
    log: Annotated[Log, Field(alias="PACKHOUSE_LOG")] = Log.INFO


def from_environment(environment: Mapping[str, str]) -> ServingSettings:
    """A variable that is empty counts as not set. Raises SpecInvalid: the first one that has another form."""
    names = {field.alias for field in ServingSettings.model_fields.values()}
    given = {name: value for name, value in environment.items() if name in names and value}
    try:
        return ServingSettings.model_validate(given)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise SpecInvalid(first["msg"], where=str(first["loc"][0]), got=str(first["input"])[:80]) from error
