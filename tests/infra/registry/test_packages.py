"""Bills of materials: what is installed in an image, as its layers say, the upper ones last; in valid CycloneDX."""

from __future__ import annotations

import gzip
import io
import json
import os
import tarfile

import pytest
import zstandard
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from jsonschema.validators import Draft7Validator
from rfc3986_validator import validate_rfc3986

from infra.registry import packages
from infra.registry.append import pull_base
from infra.registry.client import Client
from infra.registry.layer import layer
from infra.registry.packages import components, image_component, installed
from infra.registry.reference import Reference
from packhouse.artifact import Artifact
from packhouse.digest import digest_bytes
from packhouse.errors import ImageInvalid
from packhouse.release.manifest import ArchitectureCode, Inputs
from packhouse.release.sbom import bill, model_component, release_bill
from tests.support.registry_images import push_base


@Draft7Validator.FORMAT_CHECKER.checks("iri-reference")
def is_reference(value: object) -> bool:
    """The library that checks this in full adds seconds to each start of Prefect. Ours are ASCII, and so plain URIs."""
    return not isinstance(value, str) or validate_rfc3986(value, rule="URI_reference") is not None


STATUS = """Package: libc6
Status: install ok installed
Architecture: amd64
Version: 2.36-9+deb12u10

Package: gone
Status: deinstall ok config-files
Architecture: amd64
Version: 1.0
"""
OS_RELEASE = 'ID=debian\nVERSION_ID="12"\n'
NUMPY = "Metadata-Version: 2.1\nName: numpy\nVersion: 2.4.6\n\nText: Name: other\n"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"


def packed(files: dict[str, str]) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text.encode())
            archive.addfile(member, io.BytesIO(text.encode()))
    return gzip.compress(made.getvalue(), mtime=0)


def image_of(client: Client, tmp_path, *layers: bytes):
    """Pushed by hand, layer by layer."""
    from infra.registry import oci_manifests

    repository = f"p/{os.urandom(4).hex()}/runtime"
    empty = tmp_path / "x"
    empty.write_bytes(b"")
    base = push_base(client, repository, layer({"x": empty}, modified=0))
    config = {
        "os": "linux",
        "architecture": "amd64",
        "rootfs": {"type": "layers", "diff_ids": [digest_bytes(each) for each in layers]},
    }
    blobs = [oci_manifests.compact(config), *layers]
    for data in blobs:
        client.upload(repository, digest_bytes(data), len(data), lambda data=data: iter([data]))
    described = [{"digest": digest_bytes(data), "size": len(data)} for data in blobs]
    manifest = oci_manifests.compact(
        {
            "schemaVersion": 2,
            "mediaType": oci_manifests.MANIFEST,
            "config": described[0] | {"mediaType": oci_manifests.CONFIG},
            "layers": [each | {"mediaType": LAYER} for each in described[1:]],
        }
    )
    client.put_manifest(repository, digest_bytes(manifest), manifest, oci_manifests.MANIFEST)
    return pull_base(client, Reference(client.host, base.repository, digest=digest_bytes(manifest)), "linux/amd64")


def purls(found) -> list[str]:
    return sorted(each["purl"] for each in found)


@pytest.mark.server
def test_packages_are_those_of_all_layers_the_upper_ones_last(client, tmp_path):
    metadata = "opt/venv/lib/python3.11/site-packages"
    lower = {
        "./var/lib/dpkg/status": STATUS,
        "usr/lib/os-release": OS_RELEASE,
        f"{metadata}/numpy-1.dist-info/METADATA": NUMPY,
    }
    lower[f"{metadata}/old-1.dist-info/METADATA"] = NUMPY.replace("numpy", "old")
    upper = {
        f"{metadata}/.wh.old-1.dist-info": "",
        f"{metadata}/new-2.dist-info/METADATA": NUMPY.replace("numpy", "new"),
    }
    base = image_of(client, tmp_path, packed(lower), packed(upper))
    assert purls(installed(client, base)) == [
        "pkg:deb/debian/libc6@2.36-9%2Bdeb12u10?arch=amd64&distro=debian-12",
        "pkg:pypi/new@2.4.6",
        "pkg:pypi/numpy@2.4.6",
    ]


@pytest.mark.server
def test_an_opaque_folder_hides_what_is_below_and_not_what_its_own_layer_holds(client, tmp_path):
    lower = {"var/lib/dpkg/status.d/libc6": STATUS, "a/old-1.dist-info/METADATA": NUMPY.replace("numpy", "old")}
    upper = {"a/new-1.dist-info/METADATA": NUMPY, "a/.wh..wh..opq": ""}
    found = purls(installed(client, image_of(client, tmp_path, packed(lower), packed(upper))))
    assert found == ["pkg:deb/debian/libc6@2.36-9%2Bdeb12u10?arch=amd64&distro=debian", "pkg:pypi/numpy@2.4.6"]


@pytest.mark.server
def test_a_layer_that_is_no_tar_is_named(client, tmp_path):
    with pytest.raises(ImageInvalid, match="is no layer that can be read here"):
        installed(client, image_of(client, tmp_path, b"this is no tar" * 100))


@pytest.mark.server
def test_a_layer_in_zstd_is_read_too(client, tmp_path):
    """Images can be built on one, so a bill of materials can not stop at it after the commit."""
    tar = gzip.decompress(packed({"a/numpy-1.dist-info/METADATA": NUMPY}))
    base = image_of(client, tmp_path, zstandard.compress(tar[:1024]) + zstandard.compress(tar[1024:]))
    assert purls(installed(client, base)) == ["pkg:pypi/numpy@2.4.6"]


@pytest.mark.server
@pytest.mark.parametrize(("limit", "small"), [("MAX_KEPT_BYTES", len(NUMPY) * 2 - 1), ("MAX_FILES", 1)])
def test_more_than_lists_of_packages_hold_is_refused_and_not_cut_short(client, tmp_path, monkeypatch, limit, small):
    """By the sum over layers: a few kilobytes can unpack to gigabytes."""
    base = image_of(client, tmp_path, *(packed({f"a/{n}.dist-info/METADATA": NUMPY}) for n in ("one", "two")))
    assert len(installed(client, base)) == 2
    monkeypatch.setattr(packages, limit, small)
    with pytest.raises(ImageInvalid, match="holds more than lists of packages do"):
        installed(client, base)


@pytest.mark.server
def test_a_header_of_megabytes_is_not_taken_whole(client, tmp_path):
    """Python's tarfile before 3.11.10 searches it for minutes (CVE-2024-6232)."""
    head = tarfile.TarInfo("././@PaxHeader")
    head.type, head.size = tarfile.XHDTYPE, 3_000_000
    tar = head.tobuf(tarfile.USTAR_FORMAT) + b"0" * (3_000_000 + -3_000_000 % 512) + bytes(1024)
    with pytest.raises(ImageInvalid, match="is no layer that can be read here"):
        installed(client, image_of(client, tmp_path, gzip.compress(tar)))


def test_a_package_is_of_the_distribution_that_the_image_says():
    files = {"var/lib/dpkg/status": STATUS.encode(), "usr/lib/os-release": b'ID=ubuntu\nVERSION_ID="24.04"\n'}
    assert purls(components(files)) == ["pkg:deb/ubuntu/libc6@2.36-9%2Bdeb12u10?arch=amd64&distro=ubuntu-24.04"]


def test_the_bill_of_an_image_is_valid_cyclonedx_and_the_same_each_time():
    files = {"var/lib/dpkg/status": STATUS.encode(), "etc/os-release": OS_RELEASE.encode()}
    found = [*components(files), model_component("churn", "0" * 32, "who leaves")]
    made = bill(image_component("registry.example/models/churn", "sha256:" + "1" * 64), found)
    assert made == bill(
        image_component("registry.example/models/churn", "sha256:" + "1" * 64), [*reversed(found), *found]
    )
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(made.decode()) is None


def test_a_bill_with_a_reference_that_is_none_is_not_valid():
    made = json.loads(bill(image_component("registry.example/models/churn", "sha256:" + "1" * 64), []))
    made["externalReferences"] = [{"type": "website", "url": "https://registry.example/a b"}]
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(made)) is not None


def test_the_bill_of_a_release_names_model_files_and_every_library():
    inputs = Inputs(
        spec=digest_bytes(b"s"),
        weights=digest_bytes(b"w"),
        samples=digest_bytes(b"x"),
        architecture=ArchitectureCode(
            name="acme.churn",
            distribution="Acme_Models",
            version="1.2",
            code=digest_bytes(b"c"),
            requires={"einops": "0.8"},
        ),
        code=digest_bytes(b"p"),
        libraries={"torch": "2.13.0", "python": "3.11"},
        device="a processor",
    )
    artifact = Artifact(name="model.onnx", digest=digest_bytes(b"o"), size=1, media_type="")
    made = release_bill("churn", "0" * 32, inputs, [artifact], "")
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(made.decode()) is None
    document = json.loads(made)
    assert document["metadata"]["component"]["type"] == "machine-learning-model"
    listed = {each["name"]: each for each in document["components"]}
    assert listed.keys() == {"model.onnx", "Acme_Models", "torch", "einops"}
    assert listed["Acme_Models"]["purl"] == "pkg:pypi/acme-models@1.2"
    assert listed["model.onnx"]["hashes"] == [{"alg": "SHA-256", "content": digest_bytes(b"o").removeprefix("sha256:")}]
