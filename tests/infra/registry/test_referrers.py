"""What hangs on an image: by a real registry without the referrers API, by its fallback tag; and by a proxy that adds
the API to it, since Debian packages no registry that has it. Nothing is lost or doubled, whoever else writes."""

from __future__ import annotations

import json
import os
import subprocess
import threading

import pytest

from infra.registry import oci_manifests, referrers
from infra.registry.client import Client
from infra.registry.credentials import Credentials
from infra.registry.reference import Reference
from infra.registry.referrers import Attachment, attach, fallback_tag
from packhouse.errors import ImageInvalid, NotFound, RegistryUnavailable
from tests.infra.registry.conftest import USER, quick
from tests.support.registry_images import push_base, small_layer
from tests.support.rude_registry import Rule, rude

pytestmark = pytest.mark.server
SBOM = Attachment("application/vnd.cyclonedx+json", b'{"bom":1}', "application/vnd.cyclonedx+json", {"of": "it"})
PROOF = Attachment("application/vnd.dev.sigstore.bundle.v0.3+json", b'{"proof":1}', "application/json", {"of": "it"})


@pytest.fixture
def image(client, tmp_path) -> Reference:
    return push_base(client, f"r/{os.urandom(4).hex()}/model", small_layer(tmp_path, "m", os.urandom(100)))


def kinds(client: Client, image: Reference) -> list[str]:
    return sorted(each.kind for each in referrers.referrers(client, image))


def test_what_was_attached_is_listed_and_read_back(client, image):
    assert attach(client, image, [SBOM, PROOF]) == 2
    found = {each.kind: each for each in referrers.referrers(client, image)}
    assert found.keys() == {SBOM.kind, PROOF.kind}
    assert found[SBOM.kind].annotations == {"of": "it"}
    assert referrers.read(client, image, found[PROOF.kind]) == PROOF.data
    document = json.loads(client.manifest(image.repository, found[SBOM.kind].digest)[0])
    assert document["subject"]["digest"] == image.digest
    assert document["subject"]["size"] == len(client.manifest(image.repository, image.digest)[0])
    assert document["artifactType"] == SBOM.kind


def test_the_same_again_changes_nothing(client, image):
    attach(client, image, [SBOM, PROOF])
    before = client.manifest(image.repository, fallback_tag(image))
    assert attach(client, image, [PROOF, SBOM]) == 0
    assert client.manifest(image.repository, fallback_tag(image)) == before


def test_entries_of_others_stay_as_they_are(client, image):
    foreign = Attachment("application/x-foreign", b"theirs", "text/plain", {"by": "others"})
    attach(client, image, [foreign])
    entry = json.loads(client.manifest(image.repository, fallback_tag(image))[0])["manifests"][0]
    attach(client, image, [SBOM])
    listed = json.loads(client.manifest(image.repository, fallback_tag(image))[0])["manifests"]
    assert entry in listed
    assert [each["digest"] for each in listed] == sorted(each["digest"] for each in listed)
    assert len(listed) == 2


def test_entries_of_others_that_can_not_be_read_here_hide_nothing(client, image):
    """A list as only another registry would take it."""
    attach(client, image, [SBOM])
    index = json.loads(client.manifest(image.repository, fallback_tag(image))[0])
    index["manifests"] += [
        {"mediaType": "a/b", "digest": "sha512:" + "0" * 128, "size": 1},
        {"mediaType": oci_manifests.MANIFEST, "digest": "sha256:" + "0" * 64},
        {"no": "digest"},
        {"mediaType": "a/b", "digest": "sha256:" + "2" * 64, "size": 1, "annotations": ["a list"]},
    ]
    with rude(client.host) as proxy:
        body, headers = oci_manifests.compact(index), {"Content-Type": oci_manifests.INDEX}
        where = f"GET .*/manifests/{fallback_tag(image)}"
        proxy.rules.append(Rule(where, answer=200, headers=headers, body=body, times=100))
        by_proxy = Client(proxy.host, known=Credentials(), patience=quick())
        through = Reference(proxy.host, image.repository, digest=image.digest)
        assert kinds(by_proxy, through) == ["", SBOM.kind]
        assert attach(by_proxy, through, [SBOM]) == 0
        by_proxy.close()


def test_what_stands_on_the_list_itself_stays(client, image):
    attach(client, image, [SBOM])
    index = json.loads(client.manifest(image.repository, fallback_tag(image))[0]) | {"annotations": {"of": "theirs"}}
    client.put_manifest(image.repository, fallback_tag(image), oci_manifests.compact(index), oci_manifests.INDEX)
    attach(client, image, [PROOF])
    now = json.loads(client.manifest(image.repository, fallback_tag(image))[0])
    assert now["annotations"] == {"of": "theirs"}
    assert len(now["manifests"]) == 2


def test_a_tag_of_something_else_is_not_overwritten(client, image):
    data, _ = client.manifest(image.repository, image.digest)
    client.put_manifest(image.repository, fallback_tag(image), data, oci_manifests.MANIFEST)
    with pytest.raises(ImageInvalid, match="is no list of what hangs on an image"):
        attach(client, image, [SBOM])
    assert client.manifest(image.repository, fallback_tag(image))[0] == data


def test_nothing_hangs_on_an_image_that_is_not_there(client, image):
    absent = image.at("sha256:" + "0" * 64)
    assert referrers.referrers(client, absent) == []
    with pytest.raises(NotFound):
        attach(client, absent, [SBOM])


def test_an_entry_that_another_writer_has_lost_is_written_again(client, image, monkeypatch):
    """The other one read the list before us and writes it after us, once."""
    put, lost = Client.put_manifest, []

    def and_another(self, repository, version, data, media_type):
        answer = put(self, repository, version, data, media_type)
        if version == fallback_tag(image) and not lost:
            lost.append(version)
            index = {"schemaVersion": 2, "mediaType": oci_manifests.INDEX, "manifests": []}
            put(self, repository, version, oci_manifests.compact(index), oci_manifests.INDEX)
        return answer

    monkeypatch.setattr(Client, "put_manifest", and_another)
    attach(client, image, [SBOM])
    assert lost
    assert kinds(client, image) == [SBOM.kind]


def test_two_writers_at_once_and_then_once_more_lose_nothing(open_registry, client, image):
    """Each comes again until its own entries stay, as a run does that looks at what hangs there."""
    mine = [Attachment(f"application/x-{n}", b"x", "text/plain", {"n": str(n)}) for n in range(4)]

    def write(attachment: Attachment) -> None:
        own = Client(open_registry.host, known=Credentials(), patience=quick())
        attach(own, image, [attachment])
        own.close()

    threads = [threading.Thread(target=write, args=(each,)) for each in mine]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    attach(client, image, mine)
    assert kinds(client, image) == sorted(each.kind for each in mine)


def test_with_a_password_and_tls(closed_registry, tmp_path):
    known = Credentials(*USER)
    client = Client(closed_registry.host, known=known, verify=str(closed_registry.certificate), patience=quick())
    image = push_base(client, "r/closed/model", small_layer(tmp_path, "m", os.urandom(100)))
    assert attach(client, image, [SBOM]) == 1
    assert kinds(client, image) == [SBOM.kind]
    client.close()


def test_a_registry_that_dies_between_document_and_list_is_unavailable_and_the_next_run_completes(client, image):
    with rude(client.host) as proxy:
        proxy.rules.append(Rule(f"PUT .*/manifests/{fallback_tag(image)}", answer=500, times=100))
        by_proxy = Client(proxy.host, known=Credentials(), patience=quick())
        with pytest.raises(RegistryUnavailable):
            attach(by_proxy, Reference(proxy.host, image.repository, digest=image.digest), [SBOM, PROOF])
        by_proxy.close()
    assert kinds(client, image) == []
    attach(client, image, [SBOM, PROOF])
    assert kinds(client, image) == sorted([SBOM.kind, PROOF.kind])


def test_a_registry_with_the_api_lists_by_itself_and_no_tag_is_written(client, image):
    listed = {"mediaType": oci_manifests.MANIFEST, "digest": "sha256:" + "1" * 64, "size": 2, "artifactType": "a/b"}
    index = oci_manifests.compact({"schemaVersion": 2, "mediaType": oci_manifests.INDEX, "manifests": [listed]})
    with rude(client.host) as proxy:
        headers = {"Content-Type": oci_manifests.INDEX}
        proxy.rules.append(Rule("GET .*/referrers/", answer=200, headers=headers, body=index, times=100))
        proxy.rules.append(Rule("PUT .*/manifests/", changed={"OCI-Subject": image.digest}, times=100))
        by_proxy = Client(proxy.host, known=Credentials(), patience=quick())
        through = Reference(proxy.host, image.repository, digest=image.digest)
        assert attach(by_proxy, through, [SBOM]) == 1
        assert kinds(by_proxy, through) == ["a/b"]
        by_proxy.close()
    with pytest.raises(NotFound):
        client.manifest(image.repository, fallback_tag(image))


def test_skopeo_reads_what_hangs_there(client, image):
    attach(client, image, [SBOM])
    (entry,) = referrers.referrers(client, image)
    command = ["skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{image.name}@{entry.digest}"]
    done = subprocess.run(command, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["subject"]["digest"] == image.digest
