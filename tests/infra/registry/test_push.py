"""Images in a real registry: appended, pushed whole or not at all, and the same digest every time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from infra.registry import oci_manifests
from infra.registry.append import append, pull_base, tag
from infra.registry.client import Client
from infra.registry.credentials import Credentials, credentials
from infra.registry.reference import Reference
from packhouse.digest import digest_bytes
from packhouse.errors import DigestMismatch, ImageInvalid, NotFound, RegistryRefusal, RegistryUnavailable
from packhouse.store.retrying import Patience
from tests.infra.registry.conftest import USER, quick
from tests.servers.registry import docker_config, own_certificate, registry
from tests.support.registry_images import push_base, small_layer
from tests.support.rude_registry import Rule, rude
from tests.support.token_server import token_server

pytestmark = pytest.mark.server
LARGE = 3_000_000
ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def parts(tmp_path, client):
    """A base in the registry, and a layer of random bytes to put on it."""
    base = push_base(client, f"t/{os.urandom(4).hex()}/runtime", small_layer(tmp_path, "bin/x", os.urandom(100_000)))
    return base, small_layer(tmp_path, "models/model.onnx", os.urandom(LARGE))


def put(client: Client, parts, repository: str = "", **changes):
    base, made = parts
    found = pull_base(client, Reference(client.host, base.repository, digest=base.digest), "linux/amd64")
    target = Reference(client.host, repository or base.repository.replace("runtime", "model"))
    return append(
        client, found, target, made, **{"labels": {"a": "b"}, "environment": {"MODEL_DIR": "/models"}, **changes}
    )


def manifest(client: Client, image: Reference) -> dict:
    return json.loads(client.manifest(image.repository, image.version)[0])


def test_appended_image_has_the_bases_layers_and_ours_and_sends_only_ours(client, parts):
    pushed = put(client, parts)
    base, made = parts
    document = manifest(client, pushed.image)
    assert [entry["digest"] for entry in document["layers"]] == [
        *(entry["digest"] for entry in manifest(client, base)["layers"]),
        made.digest,
    ]
    assert (pushed.mounted, pushed.uploaded) == (1, 2)
    assert made.size <= pushed.sent < made.size + 5_000
    config = json.loads(
        client.small_blob(pushed.image.repository, oci_manifests.descriptor(document["config"], where=""))
    )
    assert config["config"]["Env"] == ["PATH=/bin", "MODEL_DIR=/models"]
    assert config["config"]["Labels"].items() >= {"vendor": "test", "a": "b"}.items()
    assert config["rootfs"]["diff_ids"][-1] == made.diff_id
    assert document["annotations"]["org.opencontainers.image.base.digest"] == base.digest


def test_same_release_gives_the_same_digest_and_a_second_push_sends_nothing(client, parts):
    first, second = put(client, parts), put(client, parts)
    elsewhere = put(client, parts, repository="t/another/model")
    assert first.image == second.image
    assert elsewhere.image.digest == first.image.digest
    assert (second.sent, second.mounted, second.uploaded) == (0, 0, 0)


def test_push_sets_no_tag_and_a_tag_moves_only_by_tag(client, parts):
    pushed = put(client, parts)
    with pytest.raises(NotFound):
        client.manifest(pushed.image.repository, "latest")
    assert tag(client, pushed.image, "latest")
    assert not tag(client, pushed.image, "latest")
    assert client.has_manifest(pushed.image.repository, "latest") == pushed.image.digest


def test_memory_does_not_grow_with_the_model_and_stays_under_64_mb(tmp_path, parts):
    """Of a process of its own, imports and all; it prints its peak."""
    base, _ = parts
    model = tmp_path / "model.onnx"
    with model.open("wb") as file:
        file.truncate(100_000_000)
    command = [sys.executable, "-m", "bench.append_image", str(base), str(model), f"{base.repository}-large"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert 20 < int(done.stdout) < 64


def test_base_in_another_registry_is_copied_and_not_mounted(tmp_path, client, parts):
    with registry(tmp_path / "other") as other:
        theirs = Client(other.host, known=Credentials(), patience=quick())
        base, made = parts
        found = pull_base(client, base, "linux/amd64")
        how = {"labels": {"a": "b"}, "environment": {"MODEL_DIR": "/models"}}
        pushed = append(theirs, found, Reference(other.host, "m/model"), made, source=client, **how)
        assert (pushed.mounted, pushed.uploaded) == (0, 3)
        assert pushed.image.digest == put(client, parts).image.digest


def test_index_gives_the_image_of_the_platform(client, parts):
    base, _ = parts
    data, digest = client.manifest(base.repository, base.digest)
    entry = {"mediaType": oci_manifests.MANIFEST, "digest": digest, "size": len(data)}
    index = oci_manifests.compact(
        {
            "schemaVersion": 2,
            "mediaType": oci_manifests.INDEX,
            "manifests": [{**entry, "platform": {"os": "linux", "architecture": "amd64"}}],
        }
    )
    client.put_manifest(base.repository, "multi", index, oci_manifests.INDEX)
    found = pull_base(client, Reference(client.host, base.repository, tag="multi"), "linux/amd64")
    assert found.digest == base.digest
    with pytest.raises(ImageInvalid, match="linux/arm64"):
        pull_base(client, Reference(client.host, base.repository, tag="multi"), "linux/arm64")


def test_base_that_is_not_there_is_a_clear_end(client):
    with pytest.raises(NotFound, match="no such image"):
        pull_base(client, Reference(client.host, "t/none", tag="latest"), "linux/amd64")


@pytest.mark.parametrize(
    "rule",
    [
        Rule("PATCH", cut_after=1_000_000),
        Rule("PATCH", answer=503),
        Rule("POST .*uploads/$", answer=429, headers={"Retry-After": "0"}),
        Rule("POST .*uploads/$", answer=429, headers={"Retry-After": "-5"}),
        Rule("POST .*uploads/$", answer=429, headers={"Retry-After": "nan"}),
        Rule("GET /v2/$", answer=503),
        Rule("PATCH", answer=400),
        Rule("PUT .*uploads", answer=502),
        Rule("PUT .*manifests", answer=500),
        Rule("HEAD .*blobs", answer=503),
        Rule("POST .*mount=", answer=504),
        Rule("GET .*blobs", answer=500),
        Rule("GET .*manifests", answer=502),
    ],
    ids=lambda rule: f"{rule.where} {rule.answer or 'cut'}",
)
def test_trouble_that_passes_changes_nothing(proxy, by_proxy, client, parts, rule):
    want = put(client, parts, repository="t/want/model").image.digest
    proxy.rules.append(rule)
    fresh = f"t/{os.urandom(4).hex()}/model"
    assert put(by_proxy, parts, repository=fresh).image.digest == want
    assert rule.times == 0, "the trouble never came"
    assert client.has_manifest(fresh, want) == want


def test_broken_line_goes_on_where_the_registry_is(proxy, by_proxy, parts):
    proxy.rules.append(Rule("PATCH", cut_after=2_000_000, keeps=True))
    fresh = f"t/{os.urandom(4).hex()}/model"
    pushed = put(by_proxy, parts, repository=fresh)
    assert by_proxy.has_manifest(fresh, pushed.image.digest)
    assert proxy.count("PATCH") == 2
    assert proxy.body_bytes < LARGE * 1.5, "all was sent again"


def test_line_that_breaks_more_often_than_we_try_is_worth_it_while_more_of_it_arrives(proxy, open_registry, parts):
    """Of a layer that takes longer than one round of tries has."""
    _, made = parts
    fresh = f"t/{os.urandom(4).hex()}/model"
    proxy.rules += [Rule("PATCH", cut_after=400_000, keeps=True) for _ in range(5)]
    twice = Client(proxy.host, known=Credentials(), patience=Patience(attempts=2, sleep=lambda _: None))
    twice.upload(fresh, made.digest, made.size, made.stream)
    assert twice.has_blob(fresh, made.digest)
    assert proxy.count("PATCH") == 6


def test_upload_whose_last_answer_was_lost_is_not_sent_again(proxy, by_proxy, open_registry, parts):
    _, made = parts
    fresh = f"t/{os.urandom(4).hex()}/model"
    own = Client(open_registry.host, known=Credentials(), patience=quick())
    behind = lambda: own.upload(fresh, made.digest, made.size, made.stream)  # noqa: E731
    proxy.rules += [Rule("PUT .*uploads", answer=502, before=behind), Rule("GET .*uploads/", answer=404)]
    by_proxy.upload(fresh, made.digest, made.size, made.stream)
    assert proxy.count("PATCH") == 1


def test_registry_that_lost_the_session_gets_all_of_it_again(proxy, by_proxy, parts):
    proxy.rules += [Rule("PATCH", cut_after=2_000_000), Rule("GET .*uploads/", answer=404)]
    fresh = f"t/{os.urandom(4).hex()}/model"
    pushed = put(by_proxy, parts, repository=fresh)
    assert by_proxy.has_manifest(fresh, pushed.image.digest)


@pytest.mark.parametrize(
    "rule",
    [
        Rule("PATCH", times=99, answer=503),
        Rule("PUT .*manifests", times=99, answer=500),
        Rule("POST .*uploads/$", times=99, answer=429),
    ],
    ids=lambda rule: rule.where,
)
def test_trouble_that_stays_is_an_error_with_its_reason_and_nothing_is_visible(proxy, by_proxy, client, parts, rule):
    proxy.rules.append(rule)
    fresh = f"t/{os.urandom(4).hex()}/model"
    with pytest.raises(RegistryUnavailable, match=str(rule.answer)):
        put(by_proxy, parts, repository=fresh)
    want = put(client, parts, repository="t/want/model").image.digest
    assert not client.has_manifest(fresh, want)


@pytest.mark.parametrize(
    ("rule", "error", "words"),
    [
        (
            Rule("PUT .*manifests", changed={"Docker-Content-Digest": "sha256:" + "1" * 64}),
            DigestMismatch,
            "stored some",
        ),
        (Rule("PUT .*uploads", changed={"Docker-Content-Digest": "sha256:" + "1" * 64}), DigestMismatch, "stored some"),
        (Rule("GET .*manifests/sha256", answer=200, body=b'{"mediaType": "x"}'), DigestMismatch, "another image"),
        (Rule("GET .*blobs", answer=200, body=b"{}"), DigestMismatch, "size differs"),
        (Rule("PATCH", answer=403), RegistryRefusal, "does not allow"),
        (Rule("PATCH", answer=413, times=99), ImageInvalid, "413"),
        (Rule("POST .*uploads/$", answer=401, times=2), RegistryRefusal, "authentication"),
        (
            Rule("POST .*uploads/$", answer=401, headers={"WWW-Authenticate": 'Bearer realm="http://evil.example/t"'}),
            RegistryRefusal,
            "without TLS",
        ),
        (
            Rule("POST .*uploads/$", answer=202, headers={"Location": "http://evil.example/upload"}),
            RegistryRefusal,
            "without TLS",
        ),
    ],
)
def test_registry_that_lies_or_refuses_is_believed_nothing(proxy, by_proxy, parts, rule, error, words):
    proxy.rules.append(rule)
    with pytest.raises(error, match=words):
        put(by_proxy, parts, repository=f"t/{os.urandom(4).hex()}/model")


def test_manifest_without_end_is_cut_off(proxy, by_proxy, parts):
    proxy.rules.append(Rule("GET .*manifests", answer=200, body=b" " * (oci_manifests.MAX_BYTES + 1)))
    with pytest.raises(ImageInvalid, match="too large"):
        put(by_proxy, parts)


def test_registry_that_is_killed_in_mid_push_takes_the_same_push_later(tmp_path, parts):
    _, made = parts
    fresh = f"{os.urandom(4).hex()}/model"
    folder = tmp_path / "killed"
    with registry(folder) as first, rude(first.host) as proxy:
        port = int(first.host.rpartition(":")[2])
        dying = Client(proxy.host, known=Credentials(), patience=Patience(attempts=1))
        proxy.rules.append(Rule("PATCH", before=lambda: (first.server.process.kill(), first.server.process.wait())))
        with pytest.raises(RegistryUnavailable):
            dying.upload(fresh, made.digest, made.size, made.stream)
    with registry(folder, port=port) as again:
        living = Client(again.host, known=Credentials(), patience=quick())
        assert not living.has_blob(fresh, made.digest)
        living.upload(fresh, made.digest, made.size, made.stream)
        assert living.has_blob(fresh, made.digest)


def test_password_and_own_certificate(tmp_path, closed_registry):
    config = docker_config(tmp_path / "docker", closed_registry.host, *USER) / "config.json"
    known = credentials(closed_registry.host, config)
    client = Client(closed_registry.host, known=known, verify=str(closed_registry.certificate), patience=quick())
    base = push_base(client, "c/runtime", small_layer(tmp_path, "bin/x", b"base"))
    pushed = put(client, (base, small_layer(tmp_path, "models/m", b"model")))
    assert tag(client, pushed.image, "v1")


@pytest.mark.parametrize(
    ("known", "words"),
    [(Credentials(), "asks who we are"), (Credentials("trainer", "wrong"), "does not let us in")],
)
def test_stranger_is_refused_with_what_to_do(closed_registry, known, words):
    client = Client(closed_registry.host, known=known, verify=str(closed_registry.certificate), patience=quick())
    with pytest.raises(RegistryRefusal, match=words) as caught:
        client.has_blob("c/runtime", "sha256:" + "0" * 64)
    assert "wrong" not in str(caught.value)


def test_certificate_that_nobody_vouches_for_is_refused(closed_registry):
    with pytest.raises(RegistryRefusal, match="PACKHOUSE_REGISTRY_CA"):
        Client(closed_registry.host, known=Credentials(*USER), patience=quick()).has_blob("c/r", "sha256:" + "0" * 64)


def test_bearer_tokens_one_for_each_set_of_repositories(tmp_path):
    certificate, key = own_certificate(tmp_path)
    with (
        token_server(certificate, key, USER, ("b/runtime", "b/model")) as tokens,
        registry(tmp_path / "registry", token=tokens.configuration) as found,
    ):
        client = Client(found.host, known=Credentials(*USER), patience=quick())
        base = push_base(client, "b/runtime", small_layer(tmp_path, "bin/x", b"base"))
        pushed = put(client, (base, small_layer(tmp_path, "models/m", os.urandom(LARGE))))
        assert pushed.mounted == 1
        assert any(len(scopes) == 2 for scopes in tokens.asked), "a mount needs both repositories"
        with pytest.raises(RegistryRefusal):
            client.upload("elsewhere/model", digest_bytes(b"x"), 1, lambda: iter([b"x"]))


def test_token_that_ends_in_mid_push_is_renewed(tmp_path):
    certificate, key = own_certificate(tmp_path)
    with (
        token_server(certificate, key, USER, ("b/model",)) as tokens,
        registry(tmp_path / "registry", token=tokens.configuration) as found,
        rude(found.host) as proxy,
    ):
        client = Client(proxy.host, known=Credentials(*USER), patience=quick())
        asks = f'Bearer realm="{tokens.realm}",service="test-registry",scope="repository:b/model:pull,push"'
        proxy.rules.append(Rule("PATCH", answer=401, headers={"WWW-Authenticate": asks}))
        made = small_layer(tmp_path, "models/m", os.urandom(LARGE))
        client.upload("b/model", made.digest, made.size, made.stream)
        assert client.has_blob("b/model", made.digest)
        assert len(tokens.asked) == 2


def test_redirect_to_another_host_gets_the_request_and_not_the_password(tmp_path, closed_registry, open_registry):
    data = b"behind a redirect"
    stranger = Client(open_registry.host, known=Credentials(), patience=quick())
    stranger.upload("r/blobs", digest_bytes(data), len(data), lambda: iter([data]))
    with rude(open_registry.host) as elsewhere, rude(open_registry.host) as proxy:
        away = f"http://localhost:{elsewhere.host.rpartition(':')[2]}/v2/r/blobs/blobs/{digest_bytes(data)}"
        proxy.rules += [
            Rule("GET .*blobs", answer=401, headers={"WWW-Authenticate": 'Basic realm="r"'}),
            Rule("GET .*blobs", answer=307, headers={"Location": away}),
        ]
        client = Client(proxy.host, known=Credentials(*USER), patience=quick())
        entry = oci_manifests.Descriptor(mediaType="x", digest=digest_bytes(data), size=len(data))
        assert b"".join(client.blob("r/blobs", entry)) == data
        assert any(authorization for _, authorization in proxy.seen)
        assert [authorization for _, authorization in elsewhere.seen] == [""]


def test_many_pushes_at_once_give_what_each_alone_would(tmp_path, open_registry, client, parts):
    """One client a thread, as the worker has it."""
    base, _ = parts
    ends: dict[int, str] = {}

    def one(number: int) -> None:
        own = Client(open_registry.host, known=Credentials(), patience=quick())
        made = small_layer(tmp_path, "models/m", bytes([number]) * 1_000_000)
        ends[number] = put(own, (base, made), repository=f"t/many/m{number}").image.digest

    threads = [threading.Thread(target=one, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    again = [
        put(client, (base, small_layer(tmp_path, "models/m", bytes([n]) * 1_000_000))).image.digest for n in range(6)
    ]
    assert [ends[number] for number in range(6)] == again


def test_skopeo_copies_and_reads_what_we_pushed(tmp_path, client, parts):
    pushed = put(client, parts)
    out = tmp_path / "layout"
    source = f"docker://{pushed.image.host}/{pushed.image.repository}@{pushed.image.digest}"
    try:
        subprocess.run(["skopeo", "--version"], check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("NOT RUN: skopeo is not installed: apt-get install skopeo")
    subprocess.run(
        ["skopeo", "copy", "--src-tls-verify=false", source, f"oci:{out}:x"], check=True, capture_output=True
    )
    blob = Path(out) / "blobs" / "sha256" / parts[1].digest.removeprefix("sha256:")
    assert digest_bytes(blob.read_bytes()) == parts[1].digest
