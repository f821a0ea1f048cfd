"""A release with an image: pushed by digest, proven by a canary, named by the record, and tagged only then."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
from modelpack_client import ModelPackClient

from flows.release import released as release
from flows.run_result import Status
from infra.images.builders import MODELS
from infra.registry import oci_manifests, referrers
from infra.registry.client import Client
from infra.registry.credentials import Credentials
from infra.registry.reference import parse
from infra.settings import settings
from infra.worker.context import WorkerContext, use, worker_context
from packhouse.release.lookup import at_prefix, find, read_spec
from packhouse.release.manifest import CANARY, MANIFEST
from packhouse.release.sbom import MEDIA_TYPE
from packhouse.spec.steps import OneHot
from packhouse.store import FileStore
from packhouse.training.preprocessing import Concatenate
from packhouse.trust.dsse import make_keys
from packhouse.trust.provenance import PREDICATE as PREDICATE_PROVENANCE
from packhouse.trust.provenance import SIGNED
from packhouse.trust.signatures import Trusted
from packhouse.trust.verify import verify
from tasks.images.attach_referrers import PREDICATE
from tasks.night.reconcile import reconcile
from tasks.signing.sign import sign_release
from tests.support.imaging import pictured, registry, repository
from tests.support.registry_images import push_base, small_layer
from tests.support.rude_registry import Rule, rude

__all__ = ["pictured", "registry", "repository"]

pytestmark = [pytest.mark.flow, pytest.mark.server, pytest.mark.usefixtures("api")]


def tags(client: Client, repository: str) -> list[str]:
    name = parse(repository).repository
    answer = client.ask("GET", f"{name}/tags/list", name)
    found = answer.json().get("tags") or [] if answer.status_code == 200 else []
    return sorted(tag for tag in found if not tag.startswith("sha256-"))  # lists of what hangs on an image


def test_release_with_an_image_is_whole_and_tagged_by_release_and_channel(registry, pictured):
    made = pictured()
    found = find(worker_context().store, "linear@latest")
    image = found.record.image
    assert image is not None
    repository = image.repository
    assert read_spec(found).image.repository == repository
    (verdict,) = found.record.verdicts
    assert (verdict.check, verdict.outcome.value) == (CANARY, "pass")
    assert image.digest in verdict.compared
    assert tags(registry, repository) == sorted([made.release, "latest"])
    for name in (made.release, "latest"):
        assert registry.has_manifest(parse(repository).repository, name) == image.digest
    config = json.loads(registry.manifest(parse(repository).repository, image.digest)[0])["config"]
    inner = json.loads(registry.small_blob(parse(repository).repository, oci_manifests.descriptor(config, where="")))[
        "config"
    ]
    assert inner["Labels"]["org.opencontainers.image.version"] == made.release
    assert f"PACKHOUSE_MANIFEST_DIGEST={found.record.manifest}" in inner["Env"]
    assert f"MODEL_DIR=/{MODELS}" in inner["Env"]
    verify(found)


def hanging(client: Client, record) -> dict[str, bytes]:
    """What hangs on the record's image: predicate type, or kind where it is none -> the document."""
    image = parse(record.image.reference)
    found = referrers.referrers(client, image)
    return {each.annotations.get(PREDICATE) or each.kind: referrers.read(client, image, each) for each in found}


def test_bill_of_materials_provenance_and_signature_hang_on_the_image_once(
    registry, pictured, released_models, monkeypatch, sandbox
):
    secret, public = released_models.keys
    source = pictured(signed=True).source
    monkeypatch.setenv("PACKHOUSE_SIGNING_KEY", str(secret))
    settings.cache_clear()
    use(WorkerContext(settings(), sandbox))
    record = find(worker_context().store, "linear@latest").record
    there = hanging(registry, record)
    assert there.keys() == {MEDIA_TYPE, SIGNED, PREDICATE_PROVENANCE}
    components = json.loads(there[MEDIA_TYPE])["components"]
    assert [each["name"] for each in components if each["type"] == "machine-learning-model"] == ["linear"]
    trusted = Trusted.read([public])
    for predicate in (SIGNED, PREDICATE_PROVENANCE):
        statement, by = trusted.open(there[predicate], where=predicate)
        assert by.startswith("key ")
        assert statement["predicateType"] == predicate
        assert statement["subject"][0]["digest"] == {"sha256": record.image.digest.removeprefix("sha256:")}
    assert release([source])[0].status is Status.UNCHANGED
    assert hanging(registry, record) == there


def test_what_is_signed_after_the_release_is_attached_by_the_audit(
    registry, repository, staged, tmp_path, monkeypatch, sandbox
):
    (end,) = release([staged(image=repository)])
    record = find(worker_context().store, "linear@latest").record
    assert hanging(registry, record).keys() == {MEDIA_TYPE}
    monkeypatch.setenv("PACKHOUSE_SIGNING_KEY", str(make_keys(tmp_path / "keys")[0]))
    settings.cache_clear()
    use(WorkerContext(settings(), sandbox))
    sign_release(find(worker_context().store, f"linear/{end.release}"))
    (mended,) = reconcile.fn(["linear"])
    assert mended.done == ("2 documents on the image",)
    assert hanging(registry, record).keys() == {MEDIA_TYPE, SIGNED, PREDICATE_PROVENANCE}
    assert reconcile.fn(["linear"])[0].done == ()


def test_a_published_modelpack_client_pulls_a_whole_release_that_verifies(registry, pictured, tmp_path):
    made = pictured(modelpack=True)
    repository, name = find(worker_context().store, made.name).record.image.repository, f"{made.release}-model"
    first = registry.has_manifest(parse(repository).repository, name)
    pulled = ModelPackClient(insecure=True).pull(f"{repository}:{name}", tmp_path / "pulled")
    assert pulled.config["descriptor"] == {"name": "linear", "version": made.release}
    proven = verify(at_prefix(FileStore(tmp_path / "pulled"), ""))
    assert proven == verify(find(worker_context().store, "linear@latest"))
    assert release([made.source])[0].status is Status.UNCHANGED
    assert registry.has_manifest(parse(repository).repository, name) == first


def test_image_of_a_table_with_text_answers_to_text(registry, repository, staged):
    """The canary asks it with the words, as any client would."""
    plans = np.array(["month", "year", "two years", "year"] * 6)
    numbers = np.random.default_rng(0).normal(size=(24, 13)).astype(np.float32)
    steps = [
        OneHot(input="plan", categories=("month", "two years", "year"), unknown="zeros"),
        Concatenate(inputs=("numbers", "plan")),
    ]
    inputs = {"numbers": numbers, "plan": plans}
    (end,) = release([staged(inputs=inputs, preprocessing=steps, image=repository)])
    assert end.status is Status.RELEASED, end.line()
    assert find(worker_context().store, "linear@latest").record.image is not None


def test_same_inputs_give_the_same_image_elsewhere_too(pictured, releases_with_images, tmp_path, monkeypatch, sandbox):
    """From the very source of the copied release, which its record names."""
    pictured()
    first = find(worker_context().store, "linear@latest").record
    monkeypatch.setenv("PACKHOUSE_HOME", str(tmp_path / "another-home"))
    settings.cache_clear()
    use(WorkerContext(settings(), sandbox))
    assert release([releases_with_images.original().source])[0].status is Status.RELEASED
    assert find(worker_context().store, "linear@latest").record == first


def test_another_runtime_image_is_another_release(registry, repository, staged, tmp_path, monkeypatch, sandbox):
    source = staged(image=repository)
    (one,) = release([source])
    newer = push_base(registry, "f/newer/runtime", small_layer(tmp_path, "bin/server", os.urandom(999)))
    monkeypatch.setenv("PACKHOUSE_RUNTIME_IMAGE", str(newer))
    settings.cache_clear()
    use(WorkerContext(settings(), sandbox))
    (two,) = release([source])
    assert (one.status, two.status) == (Status.RELEASED, Status.RELEASED)
    assert one.release != two.release


def test_image_whose_server_answers_something_else_is_not_committed_and_not_tagged(
    registry, repository, staged, monkeypatch
):
    """The files of the image are swapped behind the stage's back: the digests in the manifest catch it."""
    from tasks.images import build_image as stage

    honest = stage.files

    def swapped(manifest, kept):
        files = honest(manifest, kept)
        other = files["model.onnx"].parent / "swapped.onnx"
        other.write_bytes(files["model.onnx"].read_bytes()[:-1] + b"!")
        return files | {"model.onnx": other}

    monkeypatch.setattr("tasks.images.canary.files", swapped)
    (end,) = release([staged(image=repository)])
    assert end.status is Status.REFUSED
    assert "model.onnx" in end.reason
    assert "sha256 differs" in end.reason
    assert tags(registry, repository) == []
    assert not list(worker_context().store.list("linear/channels/"))


def test_runtime_image_with_another_server_is_no_base_for_a_worker_without_an_engine(
    home, tmp_path, open_registry, monkeypatch, sandbox, staged
):
    """What the canary starts here would not be what is in the image."""
    client = Client(open_registry.host, known=Credentials())
    made = small_layer(tmp_path, "bin/server", b"older")
    inner = {
        "User": "10001:10001",
        "Cmd": ["python", "-m", "packhouse.serving"],
        "Labels": {"dev.packhouse.server": "old"},
    }
    config = {"os": "linux", "architecture": "amd64", "config": inner}
    config["rootfs"] = {"type": "layers", "diff_ids": [made.diff_id]}
    base = push_base(client, "f/older/runtime", made, config)
    monkeypatch.setenv("PACKHOUSE_RUNTIME_IMAGE", str(base))
    settings.cache_clear()
    use(WorkerContext(settings(), sandbox))
    (end,) = release([staged(image=f"{open_registry.host}/f/older/linear")])
    assert end.status is Status.REFUSED
    assert "has another server than this worker" in end.reason
    assert not list(worker_context().store.list("linear/channels/"))


def test_registry_that_fails_leaves_no_release_and_a_later_run_makes_it(
    home, tmp_path, open_registry, monkeypatch, sandbox, staged
):
    client = Client(open_registry.host, known=Credentials())
    base = push_base(client, "f/late/runtime", small_layer(tmp_path, "bin/server", b"server"))
    with rude(open_registry.host) as proxy:
        monkeypatch.setenv("PACKHOUSE_RUNTIME_IMAGE", str(base))
        settings.cache_clear()
        use(WorkerContext(settings(), sandbox))
        source = staged(image=f"{proxy.host}/f/late/linear")
        proxy.rules.append(Rule("POST .*uploads", times=10_000, answer=403))
        (end,) = release([source])
        assert end.status is Status.UNAVAILABLE
        assert "403" in end.reason
        assert not list(worker_context().store.list("linear/channels/"))
        proxy.rules.clear()
        (end,) = release([source])
        assert end.status is Status.RELEASED, end.line()


@pytest.mark.parametrize(
    ("setting", "value", "image", "words"),
    [
        ("PACKHOUSE_RUNTIME_IMAGE", "", "127.0.0.1:1/linear", "none to build on"),
        ("PACKHOUSE_RUNTIME_IMAGE", "127.0.0.1:1/runtime:latest", "127.0.0.1:1/linear", "is not by digest"),
        ("PACKHOUSE_REGISTRIES", '["good.example/models"]', "evil.example/models/linear", "images may not go there"),
        ("PACKHOUSE_REGISTRIES", '["good.example/models"]', "good.example/modelsandmore/linear", "may not go there"),
        ("PACKHOUSE_REGISTRIES", '["good.example/models"]', "good.example/models/churn", "is not this model's own"),
    ],
)
def test_worker_that_can_not_or_may_not_says_so_before_it_works(
    registry, staged, monkeypatch, sandbox, setting, value, image, words
):
    monkeypatch.setenv(setting, value)
    settings.cache_clear()
    use(WorkerContext(settings(), sandbox))
    (end,) = release([staged(image=image)])
    assert end.status is Status.REFUSED
    assert words in end.reason
    assert not list(worker_context().store.list("linear/releases/")), MANIFEST
