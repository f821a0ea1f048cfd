"""A worker that is killed before or after any write to the store: whole or invisible, and the next run converges.

The writes of publish, commit and promote are numbered by a wrapper of the store; for each of them, a forked child
dies by SIGKILL just before and just after it.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from infra.worker.context import worker_context
from packhouse.artifact import Artifact, Outcome, Verdict
from packhouse.digest import digest_bytes, digest_file
from packhouse.errors import ReleaseConflict
from packhouse.parity.golden_file import write_cases
from packhouse.release.lookup import find, read_manifest, releases
from packhouse.release.manifest import PARITY, ArchitectureCode, Inputs, Manifest
from packhouse.report.model import Report
from packhouse.spec.model import Format, parse
from packhouse.store import FileStore, Store
from tasks._support.states import Candidate, Judged, Packed, Planned, Validated
from tasks.commit import commit, promote
from tasks.images.canary import unserved
from tasks.publish import publish, upload
from tests.support.small_release import of_format

WRITES = ("put", "put_if_absent", "swap")


class Deadly:
    """A store that counts writes and kills its process at one of them."""

    def __init__(self, store: Store, at: int, *, after: bool) -> None:
        self._store, self._at, self._after, self.writes = store, at, after, 0

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)
        return self._counted(method) if name in WRITES else method

    def _counted(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def write(*arguments: Any, **options: Any) -> Any:
            number, self.writes = self.writes, self.writes + 1
            if number == self._at and not self._after:
                os.kill(os.getpid(), signal.SIGKILL)
            result = method(*arguments, **options)
            if number == self._at and self._after:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return write


@pytest.fixture
def packed(home: Path, staged) -> Packed:
    """A release that is ready to be published, made of small files that are not really models."""
    source = Path(staged("linear").removeprefix("file://"))
    spec_bytes = (source / "package.toml").read_bytes()
    spec = parse(spec_bytes)
    inputs = Inputs(
        spec=digest_bytes(spec_bytes),
        weights=spec.weights.digest,
        samples=spec.samples.digest,
        architecture=ArchitectureCode(name="a", distribution="b", version="1", code=digest_bytes(b"code")),
        code=digest_bytes(b"ours"),
        libraries={"torch": "2.13.0"},
        device="x86_64",
    )
    planned = Planned(source=str(source), spec=spec, inputs=inputs, record=None)
    cache = worker_context().cache
    with cache.step("golden") as folder:
        write_cases(folder / "golden.safetensors", [])
        golden = cache.keep(folder / "golden.safetensors", name="golden.safetensors", media_type="x")
    spec_file = cache.write(spec_bytes, name="package.toml", media_type="x")
    weights = cache.write(b"weights", name="weights.safetensors", media_type="x")
    model = cache.write(b"not really onnx", name="model.onnx", media_type="x")
    verdict = Verdict(check=PARITY, subject="onnx", outcome=Outcome.PASS, compared=(model.digest,))
    candidate = Candidate(format=Format.ONNX, artifact=model, facts={}, seconds=1.0, peak_bytes=1)
    manifest = Manifest(
        model=spec.model.name,
        release=inputs.release_id,
        inputs=inputs,
        outputs=("y",),
        formats=(of_format(Format.ONNX),),
        artifacts=tuple(sorted((golden, spec_file, weights, model), key=lambda artifact: artifact.name)),
        verdicts=(verdict,),
    )
    judged = Judged(candidate=candidate, verdict=verdict, measures={})
    return Packed(planned=planned, manifest=manifest, judged=(judged,), left_out=())


def line(packed: Packed) -> None:
    planned = packed.planned
    facts = Validated(
        planned=planned,
        spec_file=packed.manifest.artifact("package.toml"),
        weights=packed.manifest.artifact("weights.safetensors"),
        samples=Artifact(name="samples.safetensors", digest=planned.inputs.samples, size=1, media_type="x"),
        facts={},
        lockdown=(),
    )
    for judged in packed.judged:
        upload(facts, judged)
    record = commit(unserved(publish.fn(packed, report(packed))))
    promote(record, "latest")


def report(packed: Packed) -> Report:
    return Report(
        model=packed.planned.model,
        release=packed.planned.release,
        source=packed.planned.source,
        made_at="2026-01-01T00:00:00+00:00",
        seconds=1.0,
        processor="p",
        case="c",
        weights_bytes=1,
        parameters=1,
        accuracy=None,
        rows=(),
        notes=(),
        lockdown=(),
    )


def in_a_child(work: Callable[[], None]) -> int:
    """Runs `work` in a forked child; gives its wait status."""
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException:  # the child must not come back into pytest
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1]


def run_deadly(packed: Packed, root: Path, at: int, *, after: bool) -> int:
    def work() -> None:
        worker_context().store = Deadly(FileStore(root), at, after=after)  # type: ignore[assignment]
        line(packed)

    return in_a_child(work)


def run_whole(packed: Packed, root: Path) -> int:
    def work() -> None:
        worker_context().store = FileStore(root)
        line(packed)

    return os.waitstatus_to_exitcode(in_a_child(work))


def digests(root: Path) -> dict[str, str]:
    """Everything but the channel, which says when it was moved."""
    files = [
        path for path in root.rglob("*") if path.is_file() and not {".tmp", ".locks", "channels"} & set(path.parts)
    ]
    return {str(path.relative_to(root)): digest_file(path) for path in files}


def assert_whole_or_invisible(root: Path) -> None:
    store = FileStore(root)
    for entry in releases(store):
        found = find(store, f"{entry.model}/{entry.release}")
        for artifact in read_manifest(found, found.record).artifacts:
            assert b"".join(store.read(f"{found.prefix}{artifact.name}", digest=artifact.digest, size=artifact.size))


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_worker_killed_at_any_write_leaves_nothing_half_and_the_next_run_converges(packed, tmp_path, after):
    whole = tmp_path / "whole"
    assert run_whole(packed, whole) == 0
    kills = 0
    for at in range(100):
        root = tmp_path / f"killed-{at}"
        status = run_deadly(packed, root, at, after=after)
        if not os.WIFSIGNALED(status):
            assert os.waitstatus_to_exitcode(status) == 0
            break
        kills += 1
        assert os.WTERMSIG(status) == signal.SIGKILL
        assert_whole_or_invisible(root)
        assert run_whole(packed, root) == 0
        assert_whole_or_invisible(root)
        assert digests(root) == digests(whole)
        assert len(list(releases(FileStore(root)))) == 1
    assert kills >= 8, "too few writes were seen for this to mean anything"


def test_nothing_is_visible_before_the_record_is_written(packed, tmp_path):
    """Killed just before the record, which is the last write but one: all bytes are up, and there is no release."""
    root = tmp_path / "store"
    names = ["model.onnx", "golden", "package", "weights", "report.json", "report.md", "report.html"]
    names += ["manifest", "record"]
    status = run_deadly(packed, root, len(names) - 1, after=False)
    assert os.WIFSIGNALED(status)
    folder = root / packed.planned.model / "releases" / packed.planned.release
    assert {path.name for path in folder.iterdir()} >= {"model.onnx", "manifest.json", "report.json"}
    assert not (folder / "record.json").exists()
    assert list(releases(FileStore(root))) == []


def test_two_runs_at_once_make_one_release_and_one_serial(packed, tmp_path):
    root = tmp_path / "store"
    children = []
    for _ in range(4):
        child = os.fork()
        if child == 0:
            try:
                worker_context().store = FileStore(root)
                line(packed)
            except BaseException:
                os._exit(1)
            os._exit(0)
        children.append(child)
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0, 0, 0, 0]
    (entry,) = releases(FileStore(root))
    assert entry.channels == ("latest#1",)


def test_other_bytes_under_the_same_name_are_never_overwritten(packed, tmp_path):
    root = tmp_path / "store"
    assert run_whole(packed, root) == 0
    folder = root / packed.planned.model / "releases" / packed.planned.release
    (folder / "record.json").unlink()
    (folder / "model.onnx").chmod(0o600)
    (folder / "model.onnx").write_bytes(b"something else!")
    assert run_whole(packed, root) == 1
    assert (folder / "model.onnx").read_bytes() == b"something else!"
    assert list(releases(FileStore(root))) == []


def test_a_committed_record_is_never_replaced_by_one_of_another_manifest(packed):
    proven = unserved(publish.fn(packed, report(packed)))
    first = commit(proven)
    other = proven.model_copy(update={"record": first.model_copy(update={"manifest": digest_bytes(b"another")})})
    with pytest.raises(ReleaseConflict, match="was committed with other bytes"):
        commit(other)
    assert find(worker_context().store, f"{first.model}/{first.release}").record == first


def without(packed: Packed, format: Format) -> Packed:
    """The same run, had this format met a time limit."""
    manifest = packed.manifest
    timed_out = Verdict(check="made", subject=format.value, outcome=Outcome.REFUSED, reason="took too long")
    less = manifest.model_copy(
        update={
            "formats": tuple(each for each in manifest.formats if each.format is not format),
            "artifacts": tuple(each for each in manifest.artifacts if each.name != format.file),
            "verdicts": (*(v for v in manifest.verdicts if v.subject != format.value), timed_out),
        }
    )
    kept = tuple(judged for judged in packed.judged if judged.candidate.format is not format)
    return packed.model_copy(update={"manifest": less, "judged": kept})


def with_torchscript(packed: Packed) -> Packed:
    script = worker_context().cache.write(b"not really torchscript", name="model.ts", media_type="x")
    passed = Verdict(check=PARITY, subject="torchscript", outcome=Outcome.PASS, compared=(script.digest,))
    candidate = Candidate(format=Format.TORCHSCRIPT, artifact=script, facts={}, seconds=1.0, peak_bytes=1)
    manifest = packed.manifest
    more = manifest.model_copy(
        update={
            "formats": (*manifest.formats, of_format(Format.TORCHSCRIPT)),
            "artifacts": tuple(sorted((*manifest.artifacts, script), key=lambda artifact: artifact.name)),
            "verdicts": (*manifest.verdicts, passed),
        }
    )
    judged = Judged(candidate=candidate, verdict=passed, measures={})
    return packed.model_copy(update={"manifest": more, "judged": (*packed.judged, judged)})


def test_a_run_killed_before_its_record_is_completed_by_one_that_made_more(packed, tmp_path):
    """The first run left TorchScript out, since it met a time limit; its manifest is up, its record is not."""
    more, root = with_torchscript(packed), tmp_path / "store"
    assert run_whole(without(more, Format.TORCHSCRIPT), root) == 0
    (record,) = root.rglob("record.json")
    (manifest,) = root.rglob("manifest.json")
    record.unlink()
    before = manifest.read_bytes()
    assert run_whole(more, root) == 0
    assert manifest.read_bytes() == before
    assert_whole_or_invisible(root)
    assert len(list(releases(FileStore(root)))) == 1


def test_a_manifest_that_claims_what_this_run_did_not_find_is_never_committed(packed, tmp_path):
    """Whoever can write to the store could have planted it."""
    root = tmp_path / "store"
    assert run_whole(with_torchscript(packed), root) == 0
    (record,) = root.rglob("record.json")
    record.unlink()
    assert run_whole(packed, root) == 1
    assert list(releases(FileStore(root))) == []
