"""Settings of a worker, from environment variables `PACKHOUSE_*`. docs/settings.md lists them."""

from __future__ import annotations

import os
from enum import StrEnum
from functools import lru_cache
from pathlib import Path
from typing import Annotated

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from infra.sandbox.lockdown import Measure

GiB = 1024**3


class BuildBy(StrEnum):
    """registry: a layer is appended over the registry's API. docker: an engine builds and pushes."""

    REGISTRY = "registry"
    DOCKER = "docker"


class Settings(BaseSettings):
    """home: where the embedded defaults live. store: where releases go. sources: the prefixes that sources must lie
    under, and that a night looks through; none: any source. trusted_programs: the prefixes below which a source may be
    a `.pt2`, which is code; none: no source. cache: local, content-addressed, may be deleted at any
    time. require: lockdown measures without which no child starts. children: how many child processes compute at a
    time. Seconds and bytes are per child. models: how many models of one run are under way at a time. latency_s: how
    long one format is timed. cuda_pool: the work pool whose workers have a GPU; cuda_wait_s: how long a release waits
    for one; cuda_omit: lockdown measures that a GPU's driver can not live with. mlflow_uri: the tracking server that
    `watch` looks at and releases are registered in; mlflow_register: all of them, and not only those whose spec asks
    for it; webhook_secret: what MLflow signs its webhooks with. approval_s: how long a promotion waits for a
    person.
    runtime_image: what models' images are built on, by digest. registries: prefixes of the repositories that images may
    go to. registry_ca: a file of authorities to trust; insecure_registries: hosts that speak plain HTTP. platform: of
    the runtime image. image_builder, engine: who builds, and where the Docker engine listens; with an engine, the
    canary is a container of it.
    signing_key: a private key in PEM, signing_password: of it; signing_certificates: its own certificate first, then
    those above; signing_keyless: by the identity of the environment instead. signers: files of public keys,
    certificates or policies, or public keys themselves, by which this worker knows what was signed, besides its own
    key. sign_pool: the work pool whose workers sign, where this one does not; sign_wait_s: how long a release waits for
    them. channel_expires_s: how long a channel's signature counts; channel_renew_s: after how long it is late. builder:
    the name of these workers in the provenance, a URI; worker_image: what they run in, by digest."""

    model_config = SettingsConfigDict(env_prefix="PACKHOUSE_", frozen=True)

    home: Path = Path("~/.packhouse").expanduser()
    store: str = ""
    sources: tuple[str, ...] = ()
    trusted_programs: tuple[str, ...] = ()
    cache: Path | None = None
    require: tuple[Measure, ...] = ()
    children: Annotated[int, Field(ge=1, le=256)] = os.cpu_count() or 1
    child_seconds: Annotated[float, Field(gt=0)] = 900.0
    child_memory: Annotated[int, Field(ge=256 * 1024 * 1024)] = 16 * GiB
    fetch_bytes: Annotated[int, Field(ge=1)] = 64 * GiB
    models: Annotated[int, Field(ge=1, le=64)] = 8
    latency_s: Annotated[float, Field(gt=0, le=600)] = 0.5
    cuda_pool: str = "cuda"
    cuda_wait_s: Annotated[float, Field(gt=0)] = 1800.0
    cuda_omit: tuple[Measure, ...] = ()
    mlflow_uri: str = ""
    mlflow_register: bool = False
    webhook_secret: SecretStr = SecretStr("")
    approval_s: Annotated[float, Field(gt=0)] = 24 * 3600.0
    runtime_image: str = ""
    registries: tuple[str, ...] = ()
    registry_ca: str = ""
    insecure_registries: tuple[str, ...] = ()
    platform: Annotated[str, Field(pattern=r"^[a-z0-9]+/[a-z0-9]+$")] = "linux/amd64"
    image_builder: BuildBy = BuildBy.REGISTRY
    engine: str = ""
    signing_key: str = ""
    signing_password: SecretStr = SecretStr("")
    signing_certificates: tuple[str, ...] = ()
    signing_keyless: bool = False
    signers: tuple[str, ...] = ()
    sign_pool: str = ""
    sign_wait_s: Annotated[float, Field(gt=0)] = 1800.0
    channel_expires_s: Annotated[float, Field(gt=0, le=1e10)] = 14 * 24 * 3600.0
    channel_renew_s: Annotated[float, Field(gt=0, le=1e10)] = 36 * 3600.0
    builder: Annotated[str, Field(pattern=r"^[a-z][a-z0-9+.-]*:\S{1,250}$")] = "urn:packhouse:worker"
    worker_image: str = ""

    @property
    def store_url(self) -> str:
        return self.store or str(self.home.resolve() / "store")

    @property
    def signs(self) -> bool:
        """Whether releases are signed, here or elsewhere."""
        return bool(self.signing_key or self.signing_keyless or self.sign_pool)

    @property
    def cache_folder(self) -> Path:
        return self.cache or self.home.resolve() / "cache"


@lru_cache(maxsize=1)
def settings() -> Settings:
    return Settings()
