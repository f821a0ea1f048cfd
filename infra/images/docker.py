"""The Docker engine, by its SDK: the second builder of a model's image.

docker writes the time into what it builds, so its images never have the same digest twice; which one a release got
stands in its record.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import docker
import docker.errors
import requests

from infra.registry import layer as layers
from infra.registry.append import Pushed
from infra.registry.reference import Reference
from packhouse.errors import EngineUnavailable, ImageInvalid, RegistryUnavailable, squeezed

TIMEOUT_S = 600
UNPROVEN = "unproven-"
"""Docker pushes by tag only: this and the first digits of the image's id."""


@contextmanager
def connected(url: str, *, building: str = "") -> Iterator[docker.DockerClient]:
    """url: such as unix:///var/run/docker.sock. building: what is built, for words.

    Raises EngineUnavailable: no engine answers there, it refuses, or breaks off. ImageInvalid: a build fails."""
    try:
        engine = docker.DockerClient(base_url=url, timeout=TIMEOUT_S)
    except docker.errors.DockerException as error:
        raise EngineUnavailable(
            "PH-0388 does not answer", where=url, got=squeezed(error, 160), next="PACKHOUSE_ENGINE names it"
        ) from error
    try:
        yield engine
    except docker.errors.BuildError as error:
        raise ImageInvalid("PH-0389 can not be built", where=building, got=squeezed(error.msg)) from error
    except (docker.errors.APIError, requests.RequestException) as error:
        raise EngineUnavailable("PH-0390 broke off", where=url, got=squeezed(error)) from error
    finally:
        engine.close()


def build_and_push(
    url: str,
    files: Mapping[str, Path],
    *,
    base: Reference,
    target: Reference,
    folder: str,
    labels: Mapping[str, str],
    environment: Mapping[str, str],
) -> Pushed:
    """`base` with the files in `folder`, built by the engine at `url` and pushed to the repository of `target`.

    Raises EngineUnavailable; ImageInvalid: it can not be built; RegistryUnavailable: the push failed, and why.
    """
    started = time.monotonic()
    dockerfile = _dockerfile(base, folder, environment)
    with connected(url, building=target.name) as engine, _context(files, dockerfile) as context:
        built, _ = engine.images.build(
            fileobj=context, custom_context=True, rm=True, network_mode="none", labels=dict(labels)
        )
        tag = f"{UNPROVEN}{str(built.id).removeprefix('sha256:')[:24]}"
        built.tag(target.name, tag)
        try:
            digest = pushed_digest(engine.images.push(target.name, tag=tag, stream=True, decode=True), target.name)
        finally:
            engine.images.remove(f"{target.name}:{tag}")
    return Pushed(
        image=target.at(digest),
        layer="",
        base=base.digest,
        size=int(built.attrs["Size"]),
        sent=0,
        mounted=0,
        uploaded=0,
        seconds=time.monotonic() - started,
    )


def pushed_digest(stream: Iterable[dict[str, Any]], where: str) -> str:
    """What the engine says that it pushed. The SDK itself never raises over a push that failed (docker-py#3277).

    Raises RegistryUnavailable: the stream holds an error, or ends without a digest.
    """
    digest = ""
    for line in stream:
        if "error" in line or "errorDetail" in line:
            said = line.get("errorDetail", {}).get("message") or line.get("error")
            raise RegistryUnavailable("PH-0387 the push failed", where=where, got=squeezed(said))
        digest = line.get("aux", {}).get("Digest", digest)
    if not digest:
        raise RegistryUnavailable("PH-0386 the push ended without a digest", where=where)
    return digest


def _dockerfile(base: Reference, folder: str, environment: Mapping[str, str]) -> str:
    lines = [f"FROM {base.at(base.digest)}", f"COPY --chown=10001:10001 {folder} /{folder}"]
    return "\n".join([*lines, *(f'ENV {name}="{value}"' for name, value in sorted(environment.items()))]) + "\n"


@contextmanager
def _context(files: Mapping[str, Path], dockerfile: str) -> Iterator[IO[bytes]]:
    """The build's context as one tar, on disk: the SDK would make the same, in memory or there."""
    with tempfile.TemporaryDirectory(prefix="packhouse-build-") as name:
        folder = Path(name)
        (folder / "Dockerfile").write_text(dockerfile)
        packed = folder / "context.tar"
        with packed.open("wb") as file:
            file.writelines(layers.tar({"Dockerfile": folder / "Dockerfile", **files}, modified=0))
        with packed.open("rb") as file:
            yield file
