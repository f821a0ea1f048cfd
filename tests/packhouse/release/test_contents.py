"""What may lie in a release's folder, what must, and whether its bytes are those of the manifest."""

from __future__ import annotations

import pytest

from packhouse.artifact import Artifact
from packhouse.digest import digest_bytes
from packhouse.errors import DigestMismatch, ReleaseInvalid
from packhouse.release.contents import check_file, is_whole, known_names, missing, needed, unknown
from packhouse.release.manifest import GOLDEN, RECORD, UNDIGESTED, Manifest
from packhouse.spec.model import SPEC_FILE, Format
from tests.support.small_release import of_format

DATA = b"the model"


def artifact(name: str, data: bytes = DATA) -> Artifact:
    return Artifact(name=name, digest=digest_bytes(data), size=len(data), media_type="application/octet-stream")


ONNX = of_format(Format.ONNX, files=("model.onnx", "model.onnx.data"))
INT8 = of_format(Format.ONNX_INT8)
NAMES = (GOLDEN, "model.int8.onnx", "model.onnx", "model.onnx.data", SPEC_FILE, "weights.safetensors")
MANIFEST = Manifest.model_construct(artifacts=tuple(map(artifact, NAMES)), formats=(ONNX, INT8))


def test_artifacts_and_what_is_said_of_the_release_may_lie_there_and_nothing_else():
    assert known_names(MANIFEST) == set(NAMES) | UNDIGESTED
    assert unknown([*NAMES, *UNDIGESTED], MANIFEST) == []
    assert unknown(["z", RECORD, "a", "model.onnx"], MANIFEST) == ["a", "z"]


def test_what_is_missing_is_named_in_order():
    assert missing(NAMES, MANIFEST.artifacts) == []
    assert missing(["model.onnx", RECORD], MANIFEST.artifacts) == sorted(set(NAMES) - {"model.onnx"})


def test_a_server_needs_every_file_of_its_formats_and_what_proves_them():
    names = [each.name for each in needed(MANIFEST, [ONNX])]
    assert names == [GOLDEN, "model.onnx", "model.onnx.data", SPEC_FILE]
    assert [each.name for each in needed(MANIFEST, [])] == [GOLDEN, SPEC_FILE]
    with pytest.raises(ReleaseInvalid, match=r"model.ts: is not in the manifest"):
        needed(MANIFEST, [of_format(Format.TORCHSCRIPT)])


@pytest.mark.parametrize(
    ("data", "words"), [(DATA, ""), (b"another", "size differs"), (b"the modem", "sha256 differs")]
)
def test_a_file_has_the_bytes_of_the_manifest_or_is_named(tmp_path, data, words):
    path = tmp_path / "model.onnx"
    assert not is_whole(path, artifact(path.name))
    path.write_bytes(data)
    assert is_whole(path, artifact(path.name)) is not bool(words)
    if not words:
        check_file(path, artifact(path.name))
        return
    with pytest.raises(DigestMismatch, match=rf"^model.onnx: {words}; .*fetch the release again"):
        check_file(path, artifact(path.name))
