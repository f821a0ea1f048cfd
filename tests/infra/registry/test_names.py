"""Names of images, credentials and documents: what is read strictly, and what is refused."""

from __future__ import annotations

import base64
import json

import pytest

from infra.registry import oci_manifests
from infra.registry.auth import challenge, is_loopback
from infra.registry.credentials import Credentials, credentials
from infra.registry.reference import Reference, parse
from packhouse.errors import ImageInvalid, RegistryRefusal

DIGEST = "sha256:" + "0" * 64


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("registry.example/team/churn", Reference("registry.example", "team/churn")),
        ("localhost/churn:v1", Reference("localhost", "churn", tag="v1")),
        ("127.0.0.1:5000/a/b_c-d.e:latest", Reference("127.0.0.1:5000", "a/b_c-d.e", tag="latest")),
        (f"r.example:443/a@{DIGEST}", Reference("r.example:443", "a", digest=DIGEST)),
        (f"r.example/a:t@{DIGEST}", Reference("r.example", "a", tag="t", digest=DIGEST)),
    ],
)
def test_reference_is_read_and_written_as_docker_does(text, want):
    assert parse(text) == want
    assert str(parse(text)) == text


@pytest.mark.parametrize(
    "text",
    ["churn", "team/churn", "r.example", "r.example/", "r.example/UPPER", "r.example/a:", "r.example/a@sha256:12",
     "http://r.example/a", "r.example/a b", "r.example//a", "user@r.example/a", "r.example/a/../b", ""],
)  # fmt: skip
def test_what_names_no_image_in_a_registry_is_refused(text):
    with pytest.raises(ImageInvalid, match="names no image"):
        parse(text)


@pytest.mark.parametrize(
    ("entry", "want"),
    [
        ({"auth": base64.b64encode(b"me:se:cret").decode()}, Credentials("me", "se:cret")),
        ({"username": "me", "password": "secret"}, Credentials("me", "secret")),
        ({"auth": "", "identitytoken": "t"}, Credentials(identity_token="t")),
    ],
)
def test_credentials_of_dockers_config_file_are_found(tmp_path, entry, want):
    (tmp_path / "config.json").write_text(json.dumps({"auths": {"r.example": entry}}))
    assert credentials("r.example", tmp_path / "config.json") == want
    assert credentials("other.example", tmp_path / "config.json") == Credentials()


def test_credentials_never_show_in_what_is_printed():
    shown = repr(Credentials("me", "secret", "token"))
    assert "secret" not in shown
    assert "token=" not in shown.replace("identity_token", "")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "can not be read"),
        ('{"auths": {"r.example": {"auth": "%%%"}}}', "can not be read"),
        ('{"credsStore": "desktop", "auths": {"r.example": {}}}', "credential helper"),
        ('{"credHelpers": {"r.example": "ecr-login"}}', "credential helper"),
    ],
)
def test_config_file_that_can_not_help_says_so(tmp_path, text, words):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(RegistryRefusal, match=words):
        credentials("r.example", tmp_path / "config.json")


def test_no_config_file_is_nobody(tmp_path):
    assert credentials("r.example", tmp_path / "none.json") == Credentials()


def test_challenge_is_taken_apart():
    found = challenge('Bearer realm="https://a/token",service="r",scope="repository:a:pull repository:b:pull,push"')
    assert (found.scheme, found.parts["realm"]) == ("bearer", "https://a/token")
    assert found.parts["scope"].split() == ["repository:a:pull", "repository:b:pull,push"]


@pytest.mark.parametrize(
    ("netloc", "want"),
    [("127.0.0.1:5000", True), ("localhost", True), ("[::1]:5000", True), ("127.0.0.1.evil.example", False),
     ("localhost.evil.example", False), ("evil@127.0.0.1", True), ("127.0.0.1@evil.example", False),
     ("10.0.0.1", False)],
)  # fmt: skip
def test_only_this_machine_is_this_machine(netloc, want):
    assert is_loopback(netloc) is want


@pytest.mark.parametrize(
    "document",
    [
        {"schemaVersion": 2, "layers": [], "config": {}},  # no type
        {"mediaType": oci_manifests.MANIFEST, "layers": [], "manifests": []},
        {"mediaType": oci_manifests.INDEX, "layers": [], "config": {}},
        {"mediaType": oci_manifests.MANIFEST, "manifests": []},
        {"mediaType": oci_manifests.INDEX, "manifests": [], "config": {}},
        {"mediaType": "application/json", "layers": []},
        ["mediaType"],
    ],
)
def test_document_with_two_meanings_or_none_is_refused(document):
    with pytest.raises(ImageInvalid):
        oci_manifests.read(json.dumps(document).encode(), where="x")


def test_index_without_our_platform_names_those_that_it_has():
    index = {"manifests": [{"platform": {"os": "linux", "architecture": "arm64"}}]}
    with pytest.raises(ImageInvalid, match="linux/arm64"):
        oci_manifests.for_platform(index, "linux/amd64", where="x")


@pytest.mark.parametrize(
    ("text", "want"), [("2025-01-01T00:00:00Z", 1_735_689_600), ("", 0), ("0001-01-01T00:00:00Z", 0)]
)
def test_creation_time_of_an_image(text, want):
    assert oci_manifests.epoch(text) == want
