"""Settings of a worker, from environment variables `PACKHOUSE_*`. `make docs` writes docs/settings.md from them."""

from __future__ import annotations

import os
from enum import StrEnum
from functools import lru_cache
from pathlib import Path
from typing import Annotated

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from infra.sandbox.lockdown import Measure
from packhouse.trust.signing_settings import PREFIX, SigningSettings

GiB = 1024**3


class BuildBy(StrEnum):
    """registry: a layer is appended over the registry's API. docker: an engine builds and pushes."""

    REGISTRY = "registry"
    DOCKER = "docker"


class Settings(SigningSettings, BaseSettings):
    """A field `name` is the environment variable `PACKHOUSE_NAME`. Fields of one group of the page stand together."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True)

    home: Annotated[
        Path,
        Field(
            description="Folder with the default store (`store/`), the cache (`cache/`) and runs' servers (`prefect/`)."
        ),
    ] = Path("~/.packhouse").expanduser()
    store: Annotated[
        str,
        Field(
            description="Store that releases go to: a folder, `file:///path` or `s3://bucket/prefix` (docs/stores.md). "
            "None: `store/` in `PACKHOUSE_HOME`."
        ),
    ] = ""
    sources: Annotated[
        tuple[str, ...],
        Field(
            description='Prefixes that sources must lie under, such as `["s3://models/sources"]`. '
            "The nightly looks for sources below them. None: any source, and the nightly must be given its roots."
        ),
    ] = ()
    trusted_programs: Annotated[
        tuple[str, ...],
        Field(
            description="Prefixes below which a source may be a `.pt2`, which is code "
            "(docs/architectures.md#program-a-pt2-that-needs-no-class). None: no source may be one."
        ),
    ] = ()
    cache: Annotated[
        Path | None,
        Field(
            description="Folder of local files by digest. You may delete it while nothing runs. "
            "None: `cache/` in `PACKHOUSE_HOME`."
        ),
    ] = None

    models: Annotated[
        int,
        Field(
            ge=1,
            le=64,
            description="Models of one `release` run that are under way at a time and go to the GPU together. "
            "`PACKHOUSE_CHILDREN` limits how many compute.",
        ),
    ] = 8
    latency_s: Annotated[
        float,
        Field(
            gt=0,
            le=600,
            description="Seconds for which one format is timed, for all batch sizes and threads (docs/latency.md).",
        ),
    ] = 0.5
    approval_s: Annotated[
        float,
        Field(
            gt=0,
            description="Seconds that a promotion to `production` waits for a person, if the spec requires approval.",
        ),
    ] = 24 * 3600.0

    children: Annotated[
        int,
        Field(
            ge=1,
            le=256,
            default_factory=lambda: os.cpu_count() or 1,
            description="Child processes that compute at a time. Default: the machine's number of processors.",
        ),
    ]
    child_seconds: Annotated[float, Field(gt=0, description="Time limit of one child process, in seconds.")] = 900.0
    child_memory: Annotated[
        int,
        Field(ge=256 * 1024 * 1024, description="Memory limit of one child process, in bytes. Mapped weights count."),
    ] = 16 * GiB
    fetch_bytes: Annotated[int, Field(ge=1, description="Size of the largest file that is fetched, in bytes.")] = (
        64 * GiB
    )
    require: Annotated[
        tuple[Measure, ...],
        Field(description="Sandbox measures without which no child process starts (docs/sandbox.md)."),
    ] = ()

    cuda_pool: Annotated[str, Field(description="Work pool whose workers have a GPU (docs/parity.md#on-a-gpu).")] = (
        "cuda"
    )
    cuda_wait_s: Annotated[
        float, Field(gt=0, description="Seconds that a release waits for the result of a GPU worker.")
    ] = 1800.0
    cuda_omit: Annotated[
        tuple[Measure, ...],
        Field(
            description="Of GPU workers: sandbox measures to leave out, because the GPU's driver fails under them "
            "(docs/sandbox.md)."
        ),
    ] = ()

    mlflow_uri: Annotated[
        str,
        Field(
            description="MLflow server. `watch` releases its finished runs (docs/triggers.md), and releases are "
            "registered in it (docs/mlflow.md). None: neither is done."
        ),
    ] = ""
    mlflow_register: Annotated[
        bool,
        Field(description="Register every release in MLflow. `false`: only those whose spec has `[mlflow]`."),
    ] = False
    webhook_secret: Annotated[
        SecretStr,
        Field(
            description="Of the webhook receiver, not of workers: the secret that MLflow signs its webhooks with, "
            "16 characters or more. None: the receiver does not start."
        ),
    ] = SecretStr("")

    runtime_image: Annotated[
        str,
        Field(
            description="Image that models' images are built on, by digest. None: a spec that has `[image]` is refused."
        ),
    ] = ""
    registries: Annotated[
        tuple[str, ...],
        Field(
            description="Prefixes of the repositories that images may go to, such as "
            '`["registry.example/models"]`. A registry on this machine needs no entry.'
        ),
    ] = ()
    registry_ca: Annotated[
        str,
        Field(
            description="File of authorities (PEM) to trust in addition to the usual ones, "
            "when the certificate of a registry is checked."
        ),
    ] = ""
    insecure_registries: Annotated[
        tuple[str, ...],
        Field(description="Hosts that are reached by plain HTTP. A registry on this machine needs no entry."),
    ] = ()
    platform: Annotated[
        str,
        Field(
            pattern=r"^[a-z0-9]+/[a-z0-9]+$",
            description="Platform of the runtime image, if `PACKHOUSE_RUNTIME_IMAGE` is an index of several.",
        ),
    ] = "linux/amd64"
    image_builder: Annotated[
        BuildBy,
        Field(
            description="Builder of images. `registry` appends a layer over the registry's API. "
            "`docker` builds and pushes with an engine."
        ),
    ] = BuildBy.REGISTRY
    engine: Annotated[
        str,
        Field(
            description="Address of a Docker engine, such as `unix:///var/run/docker.sock`. The canary and the builder "
            "`docker` use it. None: the canary is a child process."
        ),
    ] = ""

    sign_wait_s: Annotated[
        float, Field(gt=0, description="Seconds that a release waits for the workers of `PACKHOUSE_SIGN_POOL`.")
    ] = 1800.0
    channel_expires_s: Annotated[
        float,
        Field(
            gt=0,
            le=1e10,
            description="Seconds after which the signature of a channel expires (docs/channels.md#signed-channels).",
        ),
    ] = 14 * 24 * 3600.0
    channel_renew_s: Annotated[
        float,
        Field(
            gt=0,
            le=1e10,
            description="Seconds after which a channel's signature is late: the nightly must have renewed it by then.",
        ),
    ] = 36 * 3600.0
    builder: Annotated[
        str,
        Field(pattern=r"^[a-z][a-z0-9+.-]*:\S{1,250}$", description="Name of these workers in the provenance: a URI."),
    ] = "urn:packhouse:worker"
    worker_image: Annotated[
        str,
        Field(description="Image that this worker runs in, by digest, for the provenance. None: it names no image."),
    ] = ""

    @property
    def store_url(self) -> str:
        return self.store or str(self.home.resolve() / "store")

    @property
    def cache_folder(self) -> Path:
        return self.cache or self.home.resolve() / "cache"


@lru_cache(maxsize=1)
def settings() -> Settings:
    return Settings()
