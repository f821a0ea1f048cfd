"""Builds the runtime image with an engine and pushes it; what models' images are built on. `make runtime-image`.

`python -m infra.deploy.runtime_image --base python:3.11-slim@sha256:... REGISTRY/REPOSITORY[:TAG]` prints the image by
digest, as PACKHOUSE_RUNTIME_IMAGE wants it. Needs `make serving-wheels` before, and an engine: PACKHOUSE_ENGINE's,
DOCKER_HOST's or the usual socket's.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from infra.images.builders import SERVER_LABEL, server_code
from infra.images.docker import connected, pushed_digest
from infra.registry.reference import Reference, parse
from packhouse import exit_status
from packhouse.digest import DIGEST
from packhouse.errors import ImageInvalid, NotFound, PackhouseError

ROOT = Path(__file__).resolve().parent.parent.parent
DOCKERFILE = "infra/deploy/serving/Dockerfile"
SOCKET = "unix:///var/run/docker.sock"
DEFAULT_TAG = "latest"


def build(engine_url: str, target: Reference, base: str, kind: str = "cpu") -> Reference:
    """Raises NotFound: no wheels. ImageInvalid: it can not be built. EngineUnavailable, RegistryUnavailable."""
    if not (ROOT / "wheels" / f"serving-{kind}" / "requirements.lock").is_file():
        raise NotFound("PH-0379 no wheels", where=f"wheels/serving-{kind}", next=f"make serving-wheels KIND={kind}")
    tag = target.tag or DEFAULT_TAG
    with connected(engine_url, building=DOCKERFILE) as engine:
        engine.images.build(
            path=str(ROOT),
            dockerfile=DOCKERFILE,
            buildargs={"BASE": base, "KIND": kind},
            labels={SERVER_LABEL: server_code()},
            network_mode="none",
            tag=f"{target.name}:{tag}",
            rm=True,
            forcerm=True,
        )
        pushed = engine.images.push(target.name, tag=tag, stream=True, decode=True)
        return target.at(pushed_digest(pushed, target.name))


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m infra.deploy.runtime_image", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("target", help="REGISTRY/REPOSITORY[:TAG] to push to")
    parser.add_argument(
        "--base", required=True, help="the image to start from, by digest: a Debian or Ubuntu with Python 3.11 or later"
    )
    parser.add_argument(
        "--kind", choices=("cpu", "cuda"), default="cpu", help="which build of ONNX Runtime; default: cpu"
    )
    engine = os.environ.get("PACKHOUSE_ENGINE") or os.environ.get("DOCKER_HOST") or SOCKET
    parser.add_argument("--engine", default=engine, help="where the Docker engine listens; default: %(default)s")
    parser.add_argument(
        "--any-base", action="store_true", help="take a base that is not by digest, such as one of your own"
    )
    options = parser.parse_args(arguments)
    try:
        if not options.any_base and not DIGEST.search(options.base):
            raise ImageInvalid(
                "PH-0378 is not by digest", where=options.base, want="...@sha256:DIGEST", next="or --any-base"
            )
        image = build(options.engine, parse(options.target), options.base, options.kind)
    except PackhouseError as error:
        return exit_status.said(error, verbose=False)
    sys.stdout.write(f"{image}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
