"""Two small real releases in a folder, made without an orchestrator: the jobs are called as plain functions."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import packhouse
from packhouse.architectures import registry
from packhouse.artifact import Artifact, Outcome, Verdict
from packhouse.digest import digest_bytes, digest_file
from packhouse.formats.table import row
from packhouse.release.manifest import (
    GOLDEN,
    MANIFEST,
    PARITY,
    RECORD,
    REPORT_JSON,
    WEIGHTS,
    AnyTolerance,
    ArchitectureCode,
    Channel,
    Inputs,
    Manifest,
    RatioTolerance,
    Record,
    Release,
    Runtime,
    SqnrTolerance,
    channel_key,
    dump,
    load,
    release_key,
)
from packhouse.spec.model import SPEC_FILE, Format
from packhouse.store import FileStore
from tests.servers.place import made_once

MODEL = "linear"
RATIO = RatioTolerance(max=8, rms=6)
FORMATS = (Format.ONNX, Format.TORCHSCRIPT, Format.PROGRAM, Format.TORCHSCRIPT_INT8)


@dataclass(frozen=True)
class Small:
    """A committed release. store: the folder of the store. folder: the release's own folder in it."""

    store: Path
    release: str

    @property
    def folder(self) -> Path:
        return self.store / release_key(MODEL, self.release)

    @property
    def manifest(self) -> Manifest:
        return load(Manifest, (self.folder / MANIFEST).read_bytes(), where=MANIFEST)

    def copied(self, to: Path) -> Small:
        """The whole store, to be spoiled."""
        shutil.copytree(self.store, to)
        return Small(to, self.release)


def built_once(folder: Path, *, seed: int, formats: Sequence[Format] = FORMATS) -> Small:
    """The release of this seed in these formats, made by the first of a run's processes that asks for it."""
    name = "-".join(["release", str(seed), *(format.value for format in formats)])
    made = made_once(folder, name, lambda half: build(half / "store", half / "work", seed=seed, formats=formats))
    latest = load(Channel, (made / "store" / channel_key(MODEL, "latest")).read_bytes(), where="latest")
    return Small(made / "store", latest.release)


def build(store: Path, work: Path, *, seed: int, formats: Sequence[Format] = FORMATS) -> Small:
    """A release of a linear model in formats that take no second look, with `latest` pointing at it."""
    from tasks.jobs import export_onnx, export_program, export_torchscript, golden, quantise_torchscript, reference

    exports = {
        Format.ONNX: export_onnx.run,
        Format.TORCHSCRIPT: export_torchscript.run,
        Format.PROGRAM: export_program.run,
        Format.TORCHSCRIPT_INT8: quantise_torchscript.run,
    }

    torch.manual_seed(seed)
    samples = np.random.default_rng(seed).normal(size=(24, 16)).astype(np.float32)
    staged = packhouse.stage(
        registry.build("test.linear", {"hidden": 64}),
        to=str(work / "source"),
        name=MODEL,
        architecture="test.linear",
        arguments={"hidden": 64},
        inputs={"x": samples},
        outputs=["y"],
    )
    made = work / "made"
    made.mkdir(parents=True)
    source = work / "source"
    shutil.copy(source / SPEC_FILE, made / SPEC_FILE)
    shutil.copy(source / staged.spec.weights.file, made / WEIGHTS)
    given = {"spec": str(made / SPEC_FILE), "weights": str(made / WEIGHTS)}
    given |= {"samples": str(source / staged.spec.samples.file)}
    asked = {"cases": str(work / "cases"), "evaluation": str(work / "evaluation")}
    reference.run(**given, **asked)
    for format in formats:
        exports[format](**given, out=str(made / format.file))
    golden.run(cases=asked["cases"], out=str(made / GOLDEN))
    tolerances = {format: _judged(format, made, given, asked) for format in formats}
    inputs = Inputs(
        spec=digest_file(made / SPEC_FILE),
        weights=staged.spec.weights.digest,
        samples=staged.spec.samples.digest,
        architecture=ArchitectureCode(**registry.fingerprint("test.linear")),
        code=digest_bytes(b""),
        libraries={"torch": torch.__version__},
        device="a processor",
    )
    folder = store / release_key(MODEL, inputs.release_id)
    shutil.copytree(made, folder)
    (folder / REPORT_JSON).write_text("{}\n")
    seal(folder, inputs, tolerances)
    channel = Channel(release=inputs.release_id, serial=1, moved_at="2030-01-01T00:00:00+00:00")
    _put(store, channel_key(MODEL, "latest"), dump(channel))
    return Small(store, inputs.release_id)


def _judged(format: Format, made: Path, given: dict[str, str], asked: dict[str, str]) -> AnyTolerance:
    from tasks.jobs import judge

    rest = {key: given[key] for key in ("spec", "samples")}
    found = judge.run(**rest, **asked, format=format.value, model=str(made / format.file))
    assert not found["refusal"], found
    return SqnrTolerance(sqnr_db=found["golden_sqnr_db"] - 6) if format.int8 else RatioTolerance(max=8, rms=6)


def seal(folder: Path, inputs: Inputs, tolerances: dict[Format, AnyTolerance], **changes: Any) -> Manifest:
    """Writes the manifest and the record over what lies in the folder: all digests are made right."""
    undigested = {MANIFEST, RECORD, REPORT_JSON}
    artifacts = tuple(
        Artifact(name=path.name, digest=digest_file(path), size=path.stat().st_size, media_type="")
        for path in sorted(folder.iterdir())
        if path.name not in undigested
    )
    manifest = Manifest(
        **{
            "model": MODEL,
            "release": inputs.release_id,
            "inputs": inputs,
            "outputs": ("y",),
            "formats": tuple(of_format(f, t) for f, t in tolerances.items()),
            "artifacts": artifacts,
            "verdicts": tuple(
                Verdict(check=PARITY, subject=f.value, outcome=Outcome.PASS, compared=(digest_file(folder / f.file),))
                for f in tolerances
            ),
        }
        | changes
    )
    sign_off(folder, dump(manifest), manifest.model, manifest.release)
    return manifest


def of_format(format: Format, tolerance: AnyTolerance = RATIO, **changes: Any) -> Release:
    """A format of a manifest, as far as tests ask for nothing else."""
    given = {"name": format.value, "files": (format.file,), "runtime": Runtime(name=row(format).package)}
    return Release(**(given | {"tolerance": tolerance} | changes))


def sign_off(folder: Path, manifest: bytes, model: str, release: str) -> None:
    """Writes these bytes as the manifest, and the record that names them."""
    (folder / MANIFEST).write_bytes(manifest)
    record = Record(model=model, release=release, manifest=digest_bytes(manifest), manifest_size=len(manifest))
    (folder / RECORD).write_bytes(dump(record))


def reseal(small: Small, **changes: Any) -> Manifest:
    """After a file was changed: the same formats and tolerances, digests made right."""
    manifest = small.manifest
    tolerances = {each.format: each.tolerance for each in manifest.formats if each.format}
    return seal(small.folder, manifest.inputs, tolerances, **changes)


def flip(path: Path, position: int | None = None) -> None:
    """One bit of the file; of its middle, where no position is given."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2 if position is None else position] ^= 1
    path.write_bytes(data)


def _put(store: Path, key: str, data: bytes) -> None:
    FileStore(store).put(key, data, digest=digest_bytes(data))
