"""Models through packhouse, one after the other in one process, as a worker that stays up would: `python -m
bench.peers.with_packhouse OUT FORMATS GIVEN[:FAULT] ...`, FORMATS one of those below.

Each goes from a module in memory to a release in a folder store: `packhouse.stage`, then the flow. Its strictest is
what it always does. Writes OUT/0/answer.json, OUT/1/answer.json and so on.
"""

from __future__ import annotations

import sys
from pathlib import Path

import packhouse
from bench.api import ROOT
from bench.peers.answer import Answer, told
from bench.peers.given import OUTPUT, Given
from flows.release import released
from flows.run_result import Status
from infra.sandbox.client import Sandbox
from infra.settings import settings
from infra.worker.context import WorkerContext, architecture_modules, use, worker_context
from packhouse.formats.table import ROWS
from packhouse.release.lookup import find, read_manifest
from packhouse.spec.model import Format
from packhouse.store import open_store

ALL = "all"
SMALLEST = "smallest"
FORMATS: dict[str, dict[str, str]] = {
    ALL: {},
    "onnx": {"torchscript": "off", "torchscript-int8": "off", "program": "off"},
    "fp32": {"onnx-int8": "off", "torchscript-int8": "off", "program": "off"},
    SMALLEST: {"onnx-int8": "off", "torchscript": "off", "torchscript-int8": "off", "program": "off"},
}
"""As packhouse does by default; what Olive and optimum make; what Navigator makes; ONNX alone."""


def main(out: Path, formats: str, asked: list[str]) -> None:
    use(_shop())
    true = ROWS[Format.ONNX]
    for place, one in enumerate(asked):
        folder, _, fault = one.partition(":")
        ROWS[Format.ONNX] = true.model_copy(update={"job": f"bench.peers.faults:{fault}"}) if fault else true
        mine = out / str(place)
        mine.mkdir()
        told(lambda given, mine: _release(given, mine, formats), Path(folder), mine)
    worker_context().close()


def _shop() -> WorkerContext:
    """A worker's, whose children may also run the export jobs of bench.peers.faults."""
    found = settings()
    return WorkerContext(
        found,
        Sandbox(
            preload=architecture_modules(),
            require=found.require,
            allowed=("tasks.", "bench."),
            readable=[ROOT / "bench", ROOT / "tasks"],
        ),
    )


def _release(given: Given, out: Path, formats: str) -> Answer:
    name = f"{given.kind}-{out.name}"
    staged = packhouse.stage(
        given.module(),
        to=str(out / "source"),
        name=name,
        architecture="peers",
        arguments={"kind": given.kind},
        inputs=given.samples(),
        outputs=[OUTPUT],
        formats=FORMATS[formats],
        announce_to="off",
        labels=given.labels(),
    )
    (end,) = released([staged.url])
    if end.status is Status.REFUSED:
        return Answer(refused=end.reason)
    if end.status is not Status.RELEASED:
        raise SystemExit(f"{end.status}: {end.reason}")
    store = open_store(str(settings().home / "store"))
    found = find(store, f"{name}@latest")
    manifest = read_manifest(found, found.record)
    files = {made.name: str(settings().home / "store" / found.prefix / made.file) for made in manifest.formats}
    left_out = {verdict.subject: verdict.reason for verdict in manifest.verdicts if verdict.reason}
    return Answer(files=files | {"int8": files.get("onnx-int8", "")}, notes=left_out)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3:])
