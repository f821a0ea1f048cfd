"""An ONNX file that is too large for one protobuf message: two files, judged, quantised, measured and proven as one."""

from __future__ import annotations

import json

import onnx
import pytest
from onnx.external_data_helper import ExternalDataInfo

from flows.release import released as release
from flows.run_result import Status
from infra.worker.rerun import again
from packhouse.errors import DigestMismatch, ExportFailed
from packhouse.release.lookup import find, read_manifest
from packhouse.spec.model import Format
from packhouse.store import open_store
from packhouse.trust.verify import verify
from tasks import export
from tests.support.rows import plant

pytestmark = [pytest.mark.flow, pytest.mark.usefixtures("api")]

FORMATS = {"torchscript": "off", "torchscript-int8": "off", "program": "off", "onnx-int8": "required"}


def test_weights_that_do_not_fit_into_the_file_lie_beside_it_and_a_flipped_bit_there_is_found(
    home, staged, monkeypatch
):
    monkeypatch.setattr(export, "INLINE_BYTES", 20_000)
    options = {"arguments": {"hidden": 2048}, "formats": FORMATS, "gates": {"int8_worth": 0}}
    (end,) = release([staged("linear", **options)])
    assert end.status is Status.RELEASED, end.reason
    found = find(open_store(str(home / "store")), "linear@latest")
    manifest = read_manifest(found, found.record)
    by_format = {made.format: made for made in manifest.formats}
    assert by_format[Format.ONNX].files == ("model.onnx", "model.onnx.data")
    assert by_format[Format.ONNX_INT8].files == ("model.int8.onnx",)
    (folder,) = (home / "store" / "linear" / "releases").iterdir()
    graph = onnx.load(folder / "model.onnx", load_external_data=False)
    (said,) = (entry.value for entry in graph.metadata_props)
    assert manifest.artifact("model.onnx.data").digest == f"sha256:{said}"
    apart = [tensor for tensor in graph.graph.initializer if tensor.external_data]
    assert [tensor.name for tensor in apart] == sorted(tensor.name for tensor in apart)
    assert all(ExternalDataInfo(tensor).offset % 4096 == 0 for tensor in apart)
    assert manifest.artifact("model.onnx").size < 20_000 < manifest.artifact("model.onnx.data").size
    report = json.loads((folder / "report.json").read_bytes())
    sizes = {row["format"]: row["size"] for row in report["rows"]}
    assert sizes["onnx"] == sum(manifest.artifact(f"model.onnx{end}").size for end in ("", ".data"))
    assert sizes["onnx-int8"] < sizes["onnx"] / 3
    assert verify(found).formats == (Format.ONNX, Format.ONNX_INT8)
    data = folder / "model.onnx.data"
    whole = bytearray(data.read_bytes())
    whole[len(whole) // 2] ^= 1
    data.chmod(0o600)
    data.write_bytes(whole)
    with pytest.raises(DigestMismatch, match=r"model\.onnx\.data"):
        verify(found)


def test_a_step_that_failed_on_two_files_is_run_again_on_both(home, staged, monkeypatch):
    monkeypatch.setattr(export, "INLINE_BYTES", 20_000)
    plant(monkeypatch, Format.ONNX_INT8, "does_not_quantise")
    (end,) = release([staged("linear", arguments={"hidden": 2048}, formats=FORMATS)])
    assert end.status is Status.REFUSED
    (folder,) = (home / "cache" / "failures").iterdir()
    with pytest.raises(ExportFailed, match="planted, and its data lies beside it"):
        again(folder)
