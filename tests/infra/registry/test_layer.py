"""The layer's bytes depend on the files alone, and everybody's tar and gzip read them."""

from __future__ import annotations

import gzip
import io
import os
import subprocess
import tarfile

import pytest

from infra.registry import oci_manifests
from infra.registry.layer import LAYER_TYPE, STORED, layer, stored_gzip, tar
from packhouse.digest import digest_bytes

EMPTY = digest_bytes(b"")
PINNED = [
    "sha256:96ce9c326ec11411128ee1f5babbb6087e41bfa06adbc1592963e56ddc58042b",
    "sha256:9ba99102430dda679e686862320ffc0cc41743ff5488dc8c4fb51a2f6f14f632",
    "sha256:725a74dc8fdedf47c4bb8ed739133410db2e7a90b1824408d998ad8b212f3305",
]
"""Of a config, a layer and a manifest."""


@pytest.mark.parametrize("size", [0, 1, STORED - 1, STORED, STORED + 1, 2**20 - 1, 2**20, 3 * 2**20 + 17])
@pytest.mark.parametrize("chunk", [1 << 20, 70_001])
def test_gzip_of_stored_blocks_is_read_by_every_gunzip(size, chunk):
    data = os.urandom(size)
    packed = b"".join(stored_gzip(data[at : at + chunk] for at in range(0, size, chunk)))
    assert gzip.decompress(packed) == data
    assert subprocess.run(["gunzip", "-c"], input=packed, capture_output=True, check=True).stdout == data


def test_how_the_bytes_arrive_does_not_change_them():
    data = os.urandom(1_000_003)
    one = b"".join(stored_gzip([data]))
    assert one == b"".join(stored_gzip(data[at : at + 999] for at in range(0, len(data), 999)))


def test_layer_is_what_it_says_and_the_same_whatever_the_files_times_and_modes_are(tmp_path):
    files = {"models/b.onnx": tmp_path / "b", "models/a/x.json": tmp_path / "a"}
    (tmp_path / "b").write_bytes(os.urandom(200_000))
    (tmp_path / "a").write_bytes(b"{}")
    first = layer(files, modified=1_700_000_000)
    (tmp_path / "a").chmod(0o600)
    os.utime(tmp_path / "b", (1, 1))
    again = layer(dict(reversed(files.items())), modified=1_700_000_000)
    packed = b"".join(first.stream())
    assert (first.digest, first.diff_id, first.size) == (again.digest, again.diff_id, again.size)
    assert (digest_bytes(packed), len(packed)) == (first.digest, first.size)
    assert digest_bytes(gzip.decompress(packed)) == first.diff_id
    with tarfile.open(fileobj=io.BytesIO(gzip.decompress(packed))) as archive:
        entries = archive.getmembers()
    assert [entry.name for entry in entries] == ["models", "models/a", "models/a/x.json", "models/b.onnx"]
    assert {(entry.uid, entry.gid, entry.mtime, entry.uname) for entry in entries} == {
        (10001, 10001, 1_700_000_000, "")
    }
    assert [entry.mode for entry in entries] == [0o755, 0o755, 0o444, 0o444]


def test_gnu_tar_unpacks_what_we_wrote_long_names_too(tmp_path):
    name = f"models/{'long-' * 23}name/{'x' * 110}.onnx"
    (tmp_path / "m").write_bytes(b"model")
    (tmp_path / "out").mkdir()
    packed = b"".join(layer({name: tmp_path / "m"}, modified=1).stream())
    subprocess.run(["tar", "-xzf", "-", "-C", tmp_path / "out", "--no-same-owner"], input=packed, check=True)
    assert (tmp_path / "out" / name).read_bytes() == b"model"


@pytest.mark.parametrize("name", ["/etc/passwd", "../x", "a/../b", "a//b", "", "a\nb", "./a"])
def test_name_that_leads_out_of_the_image_is_refused(tmp_path, name):
    (tmp_path / "m").write_bytes(b"")
    with pytest.raises(ValueError, match="no plain relative path"):
        layer({name: tmp_path / "m"}, modified=0)


def test_file_that_grows_while_it_is_read_is_not_sent_as_if_whole(tmp_path):
    path = tmp_path / "m"
    path.write_bytes(b"x" * 10)
    stream = tar({"m": path}, modified=0)
    next(stream)
    path.write_bytes(b"x" * 20)
    with pytest.raises(ValueError, match="changed"):
        list(stream)


def test_every_later_version_makes_the_same_image_of_the_same_release(tmp_path):
    """Pinned: an image that a registry lost is made again by whichever version is there, and only the same bytes may
    have its name. Where this fails on purpose, images of before can not be brought back: the changelog must say so."""
    for name in ("manifest.json", "model.onnx"):
        (tmp_path / name).write_bytes(name.encode() * 100_000)
    made = layer({f"models/{path.name}": path for path in tmp_path.iterdir()}, modified=1_735_689_600)
    base = {"os": "linux", "created": "2025-01-01T00:00:00Z", "rootfs": {"type": "layers", "diff_ids": [EMPTY]}}
    base |= {"config": {"Env": ["PATH=/bin"], "Labels": {"vendor": "test"}, "Cmd": ["run"]}, "history": []}
    config = oci_manifests.appended_config(base, made, labels={"one": "1"}, environment={"MODEL_DIR": "/models"})
    entry = oci_manifests.Descriptor(mediaType=oci_manifests.CONFIG, digest=digest_bytes(config), size=len(config))
    below = {"layers": [{"mediaType": LAYER_TYPE, "digest": EMPTY, "size": 0}]}
    manifest = oci_manifests.appended_manifest(below, entry, made, annotations={"two": "2"}, where="")
    assert [digest_bytes(config), made.digest, digest_bytes(manifest)] == PINNED
