"""What a registry lost of an image is named, and pushed again: the same bytes, under the same digest."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from infra.registry import oci_manifests
from infra.registry.append import append, pull_base
from infra.registry.client import Client
from infra.registry.completeness import missing
from infra.registry.reference import Reference
from packhouse.digest import digest_bytes, short
from packhouse.errors import DigestMismatch, ImageInvalid, NotFound, RegistryUnavailable
from tests.support.registry_images import blob_file, push_base, small_layer
from tests.support.rude_registry import Rule

pytestmark = pytest.mark.server
PLATFORM = "linux/amd64"


@pytest.fixture
def parts(tmp_path, client):
    """A base in the registry, and a layer to put on it."""
    base = push_base(client, f"w/{os.urandom(4).hex()}/runtime", small_layer(tmp_path, "bin/x", os.urandom(10_000)))
    return base, small_layer(tmp_path, "models/model.onnx", os.urandom(50_000))


def put(client: Client, parts, **changes):
    base, made = parts
    target = Reference(client.host, base.repository.replace("runtime", "model"))
    changes = {"labels": {"a": "b"}, "environment": {}} | changes
    return append(client, pull_base(client, base, PLATFORM), target, made, **changes).image


def named(client: Client, image: Reference) -> dict[str, str]:
    """Part of the image -> its digest."""
    manifest = oci_manifests.read(client.manifest(image.repository, image.digest)[0], where="")
    layers = [entry["digest"] for entry in manifest["layers"]]
    return {"manifest": image.digest, "config": manifest["config"]["digest"], "layer": layers[-1], "base": layers[0]}


def pulled(image: Reference, to: Path) -> set[str]:
    """The digests of what a client of others pulls; it checks each."""
    command = ["skopeo", "copy", "--src-tls-verify=false", f"docker://{image}", f"dir:{to}"]
    subprocess.run(command, check=True, capture_output=True)
    return {digest_bytes(path.read_bytes()) for path in to.iterdir() if path.name != "version"}


def test_whole_image_lacks_nothing_and_costs_one_read_and_a_head_for_each_blob(by_proxy, proxy, client, parts):
    image = put(client, parts)
    assert missing(by_proxy, Reference(proxy.host, image.repository, digest=image.digest), PLATFORM) == ()
    asked = [line.split()[0] for line, _ in proxy.seen if image.repository in line]
    assert asked == ["GET", "HEAD", "HEAD", "HEAD"]


@pytest.mark.parametrize(("lost", "words"), [("manifest", "manifest"), ("config", "config"), ("layer", "layer 2 of 2")])
def test_what_a_registry_lost_is_named_and_a_push_makes_the_same_image_whole(
    open_registry, client, parts, tmp_path, lost, words
):
    image = put(client, parts)
    digests = named(client, image)
    blob_file(open_registry, digests[lost]).unlink()
    assert missing(client, image, PLATFORM) == (f"{words} {short(digests[lost])}",)
    assert put(client, parts, known=image.digest) == image
    assert missing(client, image, PLATFORM) == ()
    assert pulled(image, tmp_path / "pulled") == set(digests.values())


def test_an_image_that_was_deleted_by_its_digest_is_pushed_again(client, parts):
    image = put(client, parts)
    client.ask("DELETE", f"{image.repository}/manifests/{image.digest}", image.repository)
    assert missing(client, image, PLATFORM) == (f"manifest {short(image.digest)}",)
    assert put(client, parts) == image
    assert missing(client, image, PLATFORM) == ()


def test_all_that_is_lost_is_named_at_once(open_registry, client, parts):
    image = put(client, parts)
    digests = named(client, image)
    for part in ("config", "base", "layer"):
        blob_file(open_registry, digests[part]).unlink()
    assert [each.rpartition(" ")[0] for each in missing(client, image, PLATFORM)] == [
        "config",
        "layer 1 of 2",
        "layer 2 of 2",
    ]
    with pytest.raises(NotFound, match="no such blob"):
        put(client, parts)


def test_another_image_than_the_known_one_is_not_sent(open_registry, client, parts):
    image = put(client, parts)
    lost = blob_file(open_registry, named(client, image)["layer"])
    lost.unlink()
    before = client.sent
    with pytest.raises(DigestMismatch, match="comes to another image"):
        put(client, parts, labels={"a": "another"}, known=image.digest)
    assert client.sent == before
    assert not lost.exists()


def test_of_an_index_only_what_it_lists_for_our_platform_counts(open_registry, client, parts):
    image, other = put(client, parts), put(client, parts, labels={"a": "arm"})
    listed = {"amd64": image.digest, "arm64": other.digest}
    entries = [
        {
            "mediaType": oci_manifests.MANIFEST,
            "digest": digest,
            "size": 1,
            "platform": {"os": "linux", "architecture": on},
        }
        for on, digest in listed.items()
    ]
    data = oci_manifests.compact({"schemaVersion": 2, "mediaType": oci_manifests.INDEX, "manifests": entries})
    client.put_manifest(image.repository, "both", data, oci_manifests.INDEX)
    blob_file(open_registry, other.digest).unlink()
    index = Reference(client.host, image.repository, tag="both")
    assert missing(client, index, PLATFORM) == ()
    assert missing(client, index, "linux/arm64") == (f"manifest {short(other.digest)}",)
    with pytest.raises(ImageInvalid, match="no image for this platform"):
        missing(client, index, "linux/s390x")
    config = named(client, image)["config"]
    blob_file(open_registry, config).unlink()
    assert missing(client, index, PLATFORM) == (f"config {short(config)}",)


def test_a_tag_that_is_gone_is_named_as_it_is(client, parts):
    image = put(client, parts)
    assert missing(client, Reference(client.host, image.repository, tag="gone"), PLATFORM) == ("manifest gone",)


def test_a_registry_that_fails_says_nothing_of_what_is_lost(by_proxy, proxy, client, parts):
    image = put(client, parts)
    proxy.rules.append(Rule("HEAD .*blobs", times=1000, answer=503))
    with pytest.raises(RegistryUnavailable):
        missing(by_proxy, Reference(proxy.host, image.repository, digest=image.digest), PLATFORM)
