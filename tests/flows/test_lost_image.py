"""An image that its registry lost, all of it or a blob: named, and pushed again with the same bytes, or refused."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from flows.audit import audit
from flows.release import released as release
from flows.run_result import Status, audit_state
from infra.registry import oci_manifests, referrers
from infra.registry.client import Client
from infra.registry.completeness import missing
from infra.registry.reference import Reference, parse
from infra.settings import settings
from infra.worker.context import WorkerContext, use, worker_context
from packhouse.digest import digest_bytes, short
from packhouse.release.lookup import find, read_channel
from packhouse.release.manifest import Record
from packhouse.spec.model import SPEC_FILE
from tests.support.imaging import lose, pictured, registry, repository
from tests.support.rude_registry import rude

__all__ = ["lose", "pictured", "registry", "repository"]

pytestmark = [pytest.mark.flow, pytest.mark.server, pytest.mark.usefixtures("api")]


def record_of(channel: str = "linear@latest") -> Record:
    return find(worker_context().store, channel).record


def image_of(record: Record) -> Reference:
    assert record.image is not None
    return parse(record.image.reference)


def parts(client: Client, image: Reference) -> dict[str, str]:
    """What is to be lost -> its digest."""
    data, digest = client.manifest(image.repository, image.version)
    manifest = oci_manifests.read(data, where="")
    layers = [entry["digest"] for entry in manifest["layers"]]
    return {"manifest": digest, "config": manifest["config"]["digest"], "layer": layers[-1], "base": layers[0]}


def pulled(image: Reference, to: Path) -> set[str]:
    """The digests of what a client of others pulls; it checks each on its way."""
    command = ["skopeo", "copy", "--src-tls-verify=false", f"docker://{image}", f"dir:{to}"]
    subprocess.run(command, check=True, capture_output=True)
    return {digest_bytes(path.read_bytes()) for path in to.iterdir() if path.name != "version"}


def only_its_spec_is_left(source: str) -> None:
    """The training job's files are gone, and so is this worker's cache: what is made again comes from the store."""
    for path in Path(source.removeprefix("file://")).iterdir():
        if path.is_file() and path.name != SPEC_FILE:
            path.unlink()
    shutil.rmtree(worker_context().cache.blobs)
    worker_context().cache.blobs.mkdir()


def test_a_release_of_the_unchanged_source_pushes_again_what_the_registry_lost(registry, pictured, lose, tmp_path):
    source = pictured(modelpack=True).source
    record, channel = record_of(), read_channel(worker_context().store, "linear", "latest")
    image = image_of(record)
    digests = parts(registry, image)
    only_its_spec_is_left(source)
    for part in ("manifest", "config", "layer"):
        lose(digests[part])
        (end,) = release([source])
        assert end.status is Status.UNCHANGED, f"{part}: {end.line()}"
        assert missing(registry, image, "linux/amd64") == (), part
    assert pulled(image, tmp_path / "pulled") == set(digests.values())
    assert registry.has_manifest(image.repository, "latest") == image.digest
    assert (record_of(), read_channel(worker_context().store, "linear", "latest")) == (record, channel)

    (bill,) = referrers.referrers(registry, image)
    lose(bill.digest)
    assert release([source])[0].status is Status.UNCHANGED
    assert referrers.referrers(registry, image) == [bill]
    assert missing(registry, image.at(bill.digest), "linux/amd64") == ()

    pack = Reference(image.host, image.repository, tag=f"{record.release}-model")
    whole = parts(registry, pack)
    lose(whole["layer"])
    assert release([source])[0].status is Status.UNCHANGED
    assert missing(registry, pack, "linux/amd64") == ()
    assert parts(registry, pack) == whole


def test_the_audit_names_what_is_lost_and_pushes_it_again_where_it_can(registry, pictured, lose, monkeypatch, sandbox):
    def worker(runtime: str) -> None:
        monkeypatch.setenv("PACKHOUSE_RUNTIME_IMAGE", runtime)
        settings.cache_clear()
        use(WorkerContext(settings(), sandbox))

    pictured()
    runtime = settings().runtime_image
    image = image_of(record_of())
    digests = parts(registry, image)
    lose(digests["layer"])
    worker("")
    state = audit(return_state=True)
    assert state.name == "Rotten"
    assert "1 channels have no whole image: linear@latest: " in state.message
    assert f"lost layer 2 of 2 {short(digests['layer'])} of its image" in state.message
    assert "set it to the runtime image, by digest" in state.message
    assert missing(registry, image, "linux/amd64")

    worker(runtime)
    lose(digests["manifest"])
    state = audit(return_state=True)
    assert state.name == "Verified", state.message
    assert f"image pushed again, its registry had lost manifest {short(image.digest)}" in state.message
    assert missing(registry, image, "linux/amd64") == ()
    assert "mended" not in audit(return_state=True).message


def test_an_image_that_does_not_come_to_the_same_bytes_is_refused_and_its_channel_stays(
    registry, repository, staged, lose, monkeypatch
):
    """As another packhouse, or an engine, made it."""
    from tasks.images import build_image as stage

    honest = stage.model_image

    def older(*given, **places):
        made = honest(*given, **places)
        made.labels["made.by"] = "another"
        return made

    source = staged(image=repository)
    with monkeypatch.context() as changed:
        changed.setattr(stage, "model_image", older)
        assert release([source])[0].status is Status.RELEASED
    image, there = image_of(record_of()), read_channel(worker_context().store, "linear", "latest")
    assert release([source])[0].status is Status.UNCHANGED, "nothing is lost"
    lost = parts(registry, image)["layer"]
    lose(lost)
    for channel in ("latest", "stable"):
        (end,) = release([source], channel)
        assert end.status is Status.REFUSED
        assert f"lost layer 2 of 2 {short(lost)} of its image, which can not be pushed again" in end.reason
        assert "comes to another image" in end.reason
        assert "make another release" in end.reason
    assert missing(registry, image, "linux/amd64") == (f"layer 2 of 2 {short(lost)}",)
    assert read_channel(worker_context().store, "linear", "latest") == there
    assert not list(worker_context().store.list("linear/channels/stable"))


def test_a_runtime_image_that_lost_a_layer_too_is_named(registry, pictured, lose):
    source = pictured().source
    lost = parts(registry, image_of(record_of()))["base"]
    lose(lost)
    (end,) = release([source])
    assert end.status is Status.REFUSED
    assert f"lost layer 1 of 2 {short(lost)}" in end.reason
    assert f"{parse(settings().runtime_image).name}@{short(lost)}: no such blob" in end.reason
    assert "bring that back from a backup" in end.reason


def test_an_unchanged_release_costs_a_few_looks_at_a_whole_image(open_registry, registry, staged):
    with rude(open_registry.host) as proxy:
        source = staged(image=f"{proxy.host}/f/{os.urandom(4).hex()}/linear")
        assert release([source])[0].status is Status.RELEASED
        proxy.seen.clear()
        assert release([source])[0].status is Status.UNCHANGED
        asked = [request for request, _ in proxy.seen]
    image = image_of(record_of())
    within = f"/v2/{image.repository}"
    blobs = [f"HEAD {within}/blobs/{digest}" for name, digest in parts(registry, image).items() if name != "manifest"]
    assert asked[1] == f"GET {within}/manifests/{image.digest}", asked
    assert sorted(asked[2:5]) == sorted(blobs)
    assert not [each for each in asked if not each.startswith(("GET ", "HEAD "))]


def test_an_audit_with_a_lost_image_is_no_good_audit():
    state = audit_state({"a/1": ""}, {}, lost={"a@latest": "the registry lost manifest 0123 of its image"})
    assert state.name == "Rotten"
    assert state.message == (
        "0 of 1 do not verify, 1 channels have no whole image: a@latest: the registry lost manifest 0123 of its image"
    )
