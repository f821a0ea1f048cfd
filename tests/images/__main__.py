"""Builds both images without a network, and releases a model in containers of them: `make images-check`.

`python -m tests.images` needs root, the programs of Debian 12's packages docker.io, iptables and debootstrap, and a
network only to fetch a base and the wheels, which it keeps in `.cache`. An engine that runs already is left alone: the
check starts its own on private paths, in an empty network namespace, and ends it.

1. Dockerfile.worker and the runtime image's Dockerfile are built with `--network none` on a Debian 12 of debootstrap.
2. Services of compose.yaml are started from the worker image, with compose.yaml's commands and restrictions: Prefect's
   server, the program that deploys, MLflow, the webhook receiver, a worker. The worker must have every measure of the
   sandbox.
3. The worker releases a model that is trained for this. Another container verifies it, fetches it and computes with it.
4. The runtime image serves the release, and is ready only after it has replayed the golden cases.

Three things differ from compose.yaml: SQLite for PostgreSQL, a folder for the S3 server, and one network namespace with
loopback only for compose's networks.

Exit status: 0, all steps passed; 1, a step failed; 2, this machine lacks something.
"""

from __future__ import annotations

import base64
import io
import json
import os
import secrets
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from infra.deploy import wheels
from infra.sandbox.lockdown import Measure
from packhouse.errors import Unavailable
from tasks.jobs.measure import processor
from tests.images.building import (
    BASE,
    DOCKERFILES,
    LOCKED_DOWN,
    RUNTIME,
    USER,
    WORKER,
    StepFailed,
    build_image,
    engine_folder,
    image_size,
    inspect_worker,
    last_lines,
    logs,
    run,
    run_docker,
    try_docker,
    wait_until_healthy,
)
from tests.images.material import ROOT, base_tar, context, lacking, wheelhouse
from tests.images.services import docker_run, services
from tests.servers.engine import Engine, as_image, engine
from tests.servers.place import CannotRunError

MODEL, COLUMNS = "tumour-table", 30
SANDBOX = [str(measure) for measure in Measure]
NOTHING_TO_DO = 3
PUBLIC = "python:3.11-slim"
TRAIN = f"import sys, train; print(train.TRAININGS[{MODEL!r}](sys.argv[1]).url)"
LOAD = """
import sys
import numpy as np
import packhouse
session = packhouse.open_session(sys.argv[1])
(x,) = session.get_inputs()
rows = np.load(sys.argv[2])
outputs = session.run(None, {x.name: rows})
assert all(len(output) == len(rows) and np.isfinite(output).all() for output in outputs)
print(f"{len(rows)} rows computed")
"""


@dataclass
class Steps:
    """What was done, with the seconds that it took."""

    done: list[tuple[str, float, str]] = field(default_factory=list)

    @contextmanager
    def step(self, name: str) -> Iterator[list[str]]:
        """Gives a list for remarks on the step."""
        _say(f"{name} ...")
        started, remarks = time.monotonic(), list[str]()
        try:
            yield remarks
        except BaseException as error:  # told now: it takes a while until the engine has ended
            _say(f"{name}: FAILED after {time.monotonic() - started:.1f} s: {error}")
            raise
        self.done.append((name, time.monotonic() - started, ", ".join(remarks)))
        _say(f"{name}: {self.done[-1][1]:.1f} s {self.done[-1][2]}")

    def table(self) -> str:
        rows = [f"| {name} | {seconds:.1f} | {remark} |" for name, seconds, remark in self.done]
        return "\n".join(["| step | s | |", "|---|---|---|", *rows])


def main() -> int:
    if lacks := lacking():
        _say("\n".join(["the images were not built; this machine lacks:", *lacks]))
        return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that what was started is ended
    steps = Steps()
    try:
        with tempfile.TemporaryDirectory(prefix="packhouse-images-check-") as name:
            sizes, version = check(Path(name), steps)
    except (CannotRunError, Unavailable) as error:
        _say(f"the images were not built: {error}")
        return 2
    except StepFailed:
        return 1
    print(f"\n{processor()}, {os.cpu_count()} cores, Docker {version}\n\n{steps.table()}\n")
    print("| image | MB |\n|---|---|")
    print("\n".join(f"| {image.partition(':')[2]} | {size / 1e6:,.0f} |" for image, size in sizes.items()))
    return 0


def check(folder: Path, steps: Steps) -> tuple[dict[str, int], str]:
    """The bytes of each image, and the engine's version. Raises StepFailed, CannotRunError, Unavailable."""
    with steps.step("make the base, or find it kept"):
        base_tar()
    houses = {}
    for kind, what in ((wheels.Kind.CPU, "worker"), (wheels.Kind.SERVING_CPU, "runtime image")):
        with steps.step(f"fetch the wheels of the {what}, or find them kept") as remarks:
            houses[kind] = wheelhouse(kind)
            sizes = [path.stat().st_size for path in houses[kind].glob("*.whl")]
            remarks.append(f"{len(sizes)} wheels, {sum(sizes) / 1e6:,.0f} MB")
    sources = folder / "sources"
    with steps.step("train and stage a model"):
        _train(sources / MODEL)
    with engine_folder() as place, engine(place, isolated=True) as docker, _emptied(docker):
        _build(docker, steps, context(folder / "context", houses))
        shutil.rmtree(folder / "context")
        store, fetched = _own(folder / "store"), _own(folder / "fetched")
        _release(docker, steps, store=store, sources=sources)
        _use(docker, steps, store=store, fetched=fetched)
        _serve(docker, steps, fetched / MODEL)
        version = run_docker(docker, ["version", "--format", "{{.Server.Version}}"]).strip()
        return {image: image_size(docker, image) for image in (BASE, WORKER, RUNTIME)}, version


@contextmanager
def _emptied(docker: Engine) -> Iterator[None]:
    """No container outlives its engine."""
    try:
        yield
    finally:
        if containers := try_docker(docker, ["ps", "--all", "--quiet"]).stdout.split():
            try_docker(docker, ["rm", "--force", "--volumes", *containers])


def _train(source: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    done = run([sys.executable, "-c", TRAIN, str(source)], environment, folder=ROOT / "examples")
    if done.returncode:
        raise StepFailed(f"training ended with {done.returncode}: {last_lines(done)}")


def _build(docker: Engine, steps: Steps, folder: Path) -> None:
    with steps.step("import the base"):
        as_image(docker, BASE)
    with steps.step("find no registry"):
        if try_docker(docker, ["pull", PUBLIC]).returncode == 0:
            raise StepFailed(f"the engine could pull {PUBLIC}: it has a network")
    for image, dockerfile in DOCKERFILES.items():
        with steps.step(f"build {dockerfile}"):
            build_image(docker, folder, image)
    with steps.step("list the files of the worker image"):
        inspect_worker(docker)


def _release(docker: Engine, steps: Steps, *, store: Path, sources: Path) -> None:
    """By a worker, which Prefect's server tells to."""
    known, variables = services(), _variables()
    sqlite: dict[str, str | None] = {
        name: None for name in known["server"]["environment"] if name.startswith("PREFECT_SERVER_DATABASE_")
    }
    sqlite["PREFECT_SERVER_DATABASE_CONNECTION_URL"] = "sqlite+aiosqlite:////tmp/prefect.db"
    with steps.step("start Prefect's server"):
        names = [word for name in ("server", "mlflow") for word in ("--add-host", f"{name}:127.0.0.1")]
        alone = ["--detach", "--name", "server", "--network", "none", *names]
        words = docker_run(known["server"], WORKER, variables, environment=sqlite, options=alone)
        run_docker(docker, ["run", *words])
        wait_until_healthy(docker, "server")
    beside = ["--network", "container:server"]
    with steps.step("make pools, deployments and automations") as remarks:
        words = docker_run(known["apply"], WORKER, variables, options=["--rm", *beside])
        remarks.append(f"{len(run_docker(docker, ['run', *words]).splitlines())} made")
    places = ["--volume", f"{store}:/store", "--volume", f"{sources}:/sources:ro"]
    required = {"PACKHOUSE_REQUIRE": json.dumps(SANDBOX)}
    for name, what in (("mlflow", "MLflow"), ("webhook", "the webhook receiver"), ("worker-cpu", "a worker")):
        with steps.step(f"start {what}"):
            options = ["--detach", "--name", name, *beside, *(places if name == "worker-cpu" else [])]
            more = required if name == "worker-cpu" else {}
            words = docker_run(known[name], WORKER, variables, environment=more, options=options)
            run_docker(docker, ["run", *words])
            wait_until_healthy(docker, name)
    with steps.step("release the model"):
        parameter = f"sources={json.dumps([f'/sources/{MODEL}'])}"
        asked = ["prefect", "deployment", "run", "release/release", "--param", parameter, "--watch"]
        done = try_docker(docker, ["exec", "worker-cpu", *asked])
        if done.returncode:
            raise StepFailed(f"no release: {last_lines(done)}\nthe worker: {logs(docker, 'worker-cpu')}")
    with steps.step("release it again: nothing to do"):
        done = try_docker(docker, ["exec", "worker-cpu", "packhouse", "release", f"/sources/{MODEL}"])
        if done.returncode != NOTHING_TO_DO:
            raise StepFailed(f"the second release ended with {done.returncode}: {last_lines(done)}")


def _variables() -> dict[str, str]:
    """What an operator writes into `.env`. There is no S3 server here."""
    return {
        "PREFECT_AUTH": f"check:{secrets.token_hex(16)}",
        "PACKHOUSE_STORE": "/store",
        "PACKHOUSE_SOURCES": json.dumps(["/sources"]),
        "PACKHOUSE_TRUSTED_PROGRAMS": "[]",
        "S3_ACCESS_KEY": "unused",
        "S3_SECRET_KEY": "unused",
        "MLFLOW_PASSWORD": secrets.token_hex(16),
        "MLFLOW_SESSION_KEY": secrets.token_hex(16),
        "MLFLOW_WEBHOOK_KEY": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
        "WEBHOOK_SECRET": secrets.token_hex(16),
    }


def _use(docker: Engine, steps: Steps, *, store: Path, fetched: Path) -> None:
    """Each step in a container that knows no server and may not write to the store."""
    options = ["run", "--rm", *LOCKED_DOWN, "--env", "PACKHOUSE_STORE=/store"]
    options += [word for mount in services()["worker-cpu"]["tmpfs"] for word in ("--tmpfs", mount)]
    options += ["--volume", f"{store}:/store:ro", "--volume", f"{fetched}:/fetched"]
    reference = f"{MODEL}@latest"
    with steps.step("verify the release") as remarks:
        remarks.append(run_docker(docker, [*options, WORKER, "packhouse", "verify", reference]).strip())
    with steps.step("read the sandbox's measures in its report") as remarks:
        report = json.loads(run_docker(docker, [*options, WORKER, "packhouse", "show", reference, "--json"]))
        if lost := [measure for measure in SANDBOX if measure not in report["lockdown"]]:
            raise StepFailed(f"the release was made without: {', '.join(lost)}")
        remarks.append(f"{len(report['lockdown'])} of {len(SANDBOX)}")
    with steps.step("fetch the release"):
        run_docker(docker, [*options, WORKER, "packhouse", "fetch", reference, f"/fetched/{MODEL}"])
    with steps.step("load it and compute") as remarks:
        rows = np.random.default_rng(0).normal(10, 5, (4, COLUMNS)).astype(np.float32)
        packed = io.BytesIO()
        np.save(packed, rows)
        (fetched / "rows.npy").write_bytes(packed.getvalue())
        words = ["python", "-c", LOAD, f"/fetched/{MODEL}", "/fetched/rows.npy"]
        remarks.append(run_docker(docker, [*options, WORKER, *words]).strip())


def _serve(docker: Engine, steps: Steps, release: Path) -> None:
    """By the runtime image, as its user starts it. It is healthy only after it has replayed the golden cases."""
    with steps.step("serve the release with the runtime image"):
        options = ["--detach", "--name", "serving", "--volume", f"{release}:/models:ro", "--health-interval", "1s"]
        run_docker(docker, ["run", *options, *LOCKED_DOWN, RUNTIME])
        wait_until_healthy(docker, "serving")
    with steps.step("stop the server"):
        run_docker(docker, ["stop", "serving"])
        status = run_docker(docker, ["inspect", "--format", "{{.State.ExitCode}}", "serving"]).strip()
        if status != "0":
            raise StepFailed(f"the server ended with {status}: {logs(docker, 'serving')}")


def _own(folder: Path) -> Path:
    """A folder that the images' user may write to."""
    folder.mkdir()
    os.chown(folder, USER, USER)
    return folder


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
