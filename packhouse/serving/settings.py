"""Settings of the server, from environment variables. `make docs` writes docs/settings.md from them."""

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
    """A field's alias is its environment variable."""

    folder: Annotated[
        Path, Field(alias="MODEL_DIR", description="Folder of the release, as `packhouse fetch` leaves it.")
    ] = Path("/models")
    host: Annotated[
        str, Field(alias="HOST", description="Address to listen on. The default is every address of the machine.")
    ] = "0.0.0.0"  # noqa: S104 - in a container, whose network is its own
    port: Annotated[int, Field(alias="PORT", ge=0, le=65_535, description="Port to listen on. 0: a free one.")] = 8080
    manifest: Annotated[
        Digest | None,
        Field(
            alias="PACKHOUSE_MANIFEST_DIGEST",
            description="Digest that `manifest.json` must have: `sha256:` and 64 hex digits. None: any.",
        ),
    ] = None
    trust: Annotated[
        str,
        Field(
            alias="PACKHOUSE_TRUST",
            description="Files of public keys, separated by `:`. One of the keys must have signed the release "
            "(docs/signing.md). None: no signature is required. For folders that were fetched with their record: an "
            "image holds none, so deploy it by digest.",
        ),
    ] = ""
    choice: Annotated[
        Choice | FormatName,
        Field(
            alias="PACKHOUSE_FORMAT",
            union_mode="left_to_right",
            description="Format to serve. `auto`: INT8 if the release has it and this processor computes it as it was "
            "judged, else fp32. `auto` never selects a format that must be named.",
        ),
    ] = Choice.AUTO
    threads: Annotated[
        Count,
        Field(
            alias="PACKHOUSE_THREADS",
            default_factory=available,
            description="Threads that one run computes with. Default: the processors that this process may use, by "
            "affinity and the container's quota, rounded down.",
        ),
    ]
    runs: Annotated[
        Count,
        Field(
            alias="PACKHOUSE_RUNS",
            description="Requests that are worked on at a time: while one is computed, the next is parsed.",
        ),
    ] = 2
    queue: Annotated[
        int,
        Field(
            alias="PACKHOUSE_QUEUE",
            ge=0,
            le=100_000,
            description="Requests that may wait in addition to these. The next one gets status 429.",
        ),
    ] = 64
    max_body_bytes: Annotated[
        Bytes,
        Field(
            alias="PACKHOUSE_MAX_BODY_BYTES",
            description="Size of the largest body, in bytes. All bodies together may have four times as much.",
        ),
    ] = 64 * MiB
    max_json_bytes: Annotated[
        Bytes,
        Field(
            alias="PACKHOUSE_MAX_JSON_BYTES",
            description="Size of the largest JSON, in bytes. A million numbers take about 0.1 s, in which the server "
            "parses nothing else: send larger tensors as binary data.",
        ),
    ] = 16 * MiB
    body_s: Annotated[
        Seconds, Field(alias="PACKHOUSE_BODY_S", description="Seconds within which a body must arrive.")
    ] = 30.0
    grace_s: Annotated[
        Seconds,
        Field(
            alias="PACKHOUSE_GRACE_S",
            description="Seconds for the requests that are under way when the server is told to stop.",
        ),
    ] = 20.0
    golden: Annotated[
        bool,
        Field(
            alias="PACKHOUSE_GOLDEN",
            description="Replay the golden cases before the server is ready. `false`: only for a processor or runtime "
            "that is known to differ and accepted. Digests are checked in both cases.",
        ),
    ] = True
    merge_rows: Annotated[
        int,
        Field(
            alias="PACKHOUSE_MAX_BATCH",
            ge=1,
            le=65_536,
            description="Dynamic batching: rows of waiting requests that one run computes together, at most "
            "(docs/serving.md#computing-requests-together). 1: off.",
        ),
    ] = 1
    merge_ms: Annotated[
        float,
        Field(
            alias="PACKHOUSE_BATCH_MS",
            ge=0,
            le=1000,
            description="Dynamic batching: milliseconds that a run waits for more requests.",
        ),
    ] = 0.0
    log: Annotated[
        Log,
        Field(
            alias="PACKHOUSE_LOG",
            description="`info`: one line for each request, too. `warning`: only what went wrong.",
        ),
    ] = Log.INFO


def from_environment(environment: Mapping[str, str]) -> ServingSettings:
    """A variable that is empty counts as not set. Raises SpecInvalid: the first one that has another form."""
    names = {field.alias for field in ServingSettings.model_fields.values()}
    given = {name: value for name, value in environment.items() if name in names and value}
    try:
        return ServingSettings.model_validate(given)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise SpecInvalid(first["msg"], where=str(first["loc"][0]), got=str(first["input"])[:80]) from error
