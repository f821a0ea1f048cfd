"""Settings of a worker, from environment variables `PACKHOUSE_*`. docs/settings.md lists them."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from typing import Annotated

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from infra.lockdown import Measure

GiB = 1024**3


class Settings(BaseSettings):
    """home: where the embedded defaults live. store: where releases go. cache: local, content-addressed, may be
    deleted at any time. require: lockdown measures without which no child starts. children: how many child processes
    compute at a time. Seconds and bytes are per child."""

    model_config = SettingsConfigDict(env_prefix="PACKHOUSE_", frozen=True)

    home: Path = Path("~/.packhouse").expanduser()
    store: str = ""
    cache: Path | None = None
    require: tuple[Measure, ...] = ()
    children: Annotated[int, Field(ge=1, le=256)] = os.cpu_count() or 1
    child_seconds: Annotated[float, Field(gt=0)] = 900.0
    child_memory: Annotated[int, Field(ge=256 * 1024 * 1024)] = 16 * GiB
    fetch_bytes: Annotated[int, Field(ge=1)] = 64 * GiB

    @property
    def store_url(self) -> str:
        return self.store or str(self.home.resolve() / "store")

    @property
    def cache_folder(self) -> Path:
        return self.cache or self.home.resolve() / "cache"


@lru_cache(maxsize=1)
def settings() -> Settings:
    return Settings()
