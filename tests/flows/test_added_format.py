"""A format that another package adds, examples/openvino-format, goes the whole way of one that is built in."""

from __future__ import annotations

import re
import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np
import pytest
from sklearn.preprocessing import OneHotEncoder

import packhouse
from flows.release import released as release
from flows.run_result import Status
from packhouse.artifact import Outcome
from packhouse.digest import digest_file
from packhouse.errors import DigestMismatch
from packhouse.parity.golden_file import golden, read_cases
from packhouse.release.lookup import Found, find, read_manifest
from packhouse.release.manifest import GOLDEN, REPORT_HTML, REPORT_JSON, load
from packhouse.release.sbom import SBOM
from packhouse.report.model import Report
from packhouse.store import open_store
from packhouse.training.preprocessing import from_sklearn
from packhouse.trust.verify import verify
from tests.support.rows import plant
from tests.support.staged import ONNX_ONLY

pytestmark = [pytest.mark.flow, pytest.mark.usefixtures("api")]

REQUIRED = ONNX_ONLY | {"openvino": "required"}
PACKAGE = "packhouse-openvino"


def found_in(home: Path, model: str = "linear") -> Found:
    return find(open_store(str(home / "store")), f"{model}@latest")


def test_it_is_made_compared_timed_proven_reported_and_opened(home, staged, command):
    (end,) = release([staged("linear", formats=REQUIRED)])
    assert end.status is Status.RELEASED, end.reason
    found = found_in(home)
    folder, manifest = home / "store" / found.prefix, read_manifest(found, found.record)
    made = {each.name: each for each in manifest.formats}
    assert list(made) == ["onnx", "openvino"]
    ours = made["openvino"]
    assert (ours.files, ours.runtime.name, ours.way) == (("model.xml", "model.bin"), PACKAGE, "converted")
    assert ours.tolerance == made["onnx"].tolerance
    verdict = next(each for each in manifest.verdicts if each.subject == "openvino")
    assert verdict.outcome is Outcome.PASS
    assert {digest_file(folder / name) for name in ours.files} < set(verdict.compared)
    assert list(manifest.inputs.format_packages) == [PACKAGE]
    assert "openvino" in manifest.inputs.libraries
    assert f'"{PACKAGE}"' in (folder / SBOM).read_text()

    report = load(Report, (folder / REPORT_JSON).read_bytes(), where=REPORT_JSON)
    row = report.rows[1]
    assert (row.format, row.outcome) == ("openvino", Outcome.PASS)
    assert row.max_ratio is not None
    assert row.size == sum((folder / name).stat().st_size for name in ours.files)
    timed = {(each.format, each.batch, each.threads) for each in report.latency}
    assert {("onnx", 1, 1), ("openvino", 1, 1)} <= timed, "larger batches only where there was time"
    page = (folder / REPORT_HTML).read_text()
    assert re.search(r"<td>openvino</td>.*<td>pass</td>", page)

    assert verify(found).formats == ("onnx", "openvino")
    for arguments in (("verify", "linear@latest"), ("show", "linear@latest")):
        done = command(*arguments, home=home)
        assert done.returncode == 0, done.stderr
        assert "openvino" in done.stdout
    model = packhouse.open_session(folder, "openvino", threads=1)
    session = packhouse.open_session(folder)
    for case in golden(read_cases(folder / GOLDEN)):
        x = dict(case.inputs)
        np.testing.assert_allclose(model(x)["y"], session.run(["y"], x)[0], rtol=1e-4, atol=1e-5)
    assert "packhouse_openvino" in sys.modules, "the consumer's own process opens it"


def test_the_same_inputs_give_the_same_bytes_and_the_second_run_has_nothing_to_do(home, staged, tmp_path):
    source = staged("linear", formats=REQUIRED)
    (end,) = release([source])
    first = {path.name: digest_file(path) for path in (home / "store" / found_in(home).prefix).iterdir()}
    (again,) = release([source])
    assert (again.status, again.release) == (Status.UNCHANGED, end.release)
    (home / "store").rename(tmp_path / "earlier")
    (other,) = release([source])
    assert (other.status, other.release) == (Status.RELEASED, end.release)
    second = {path.name: digest_file(path) for path in (home / "store" / found_in(home).prefix).iterdir()}
    assert {name: second[name] for name in ("model.xml", "model.bin", "manifest.json")} == {
        name: first[name] for name in ("model.xml", "model.bin", "manifest.json")
    }


@pytest.mark.parametrize("name", ["model.xml", "model.bin"])
def test_a_flipped_bit_in_either_file_is_found(home, staged, name):
    release([staged("linear", formats=REQUIRED)])
    found = found_in(home)
    path = home / "store" / found.prefix / name
    whole = bytearray(path.read_bytes())
    whole[len(whole) // 2] ^= 1
    path.chmod(0o600)
    path.write_bytes(whole)
    with pytest.raises(DigestMismatch, match=re.escape(name)):
        verify(found)


def test_an_operator_that_openvino_can_not_read_leaves_it_out_by_name(home, staged):
    """`ai.onnx.ml.LabelEncoder`, which text features become in ONNX."""
    plans = np.array([f"plan {number % 16}" for number in range(80)])
    steps = from_sklearn(OneHotEncoder(handle_unknown="ignore").fit(plans[:, None]), "plan")
    formats = ONNX_ONLY | {"openvino": "optional"}
    source = staged("linear", inputs={"plan": plans}, preprocessing=steps, formats=formats)
    (end,) = release([source])
    assert end.status is Status.RELEASED, end.reason
    found = found_in(home)
    manifest = read_manifest(found, found.record)
    assert [made.name for made in manifest.formats] == ["onnx"]
    (verdict,) = (each for each in manifest.verdicts if each.subject == "openvino")
    assert verdict.outcome is Outcome.REFUSED
    assert "OpenVINO can not read the operator ai.onnx.ml.LabelEncoder" in verdict.reason
    page = (home / "store" / found.prefix / REPORT_HTML).read_text()
    assert "ai.onnx.ml.LabelEncoder" in page


def test_an_option_that_the_package_does_not_know_refuses_a_required_format(home, staged):
    asked = {"want": "required", "options": {"precision": "f16"}}
    (end,) = release([staged("linear", formats=ONNX_ONLY | {"openvino": asked})])
    assert end.status is Status.REFUSED
    assert "there is no option 'precision'" in end.reason


def test_where_its_base_is_left_out_it_is_left_out_too(home, staged, monkeypatch):
    plant(monkeypatch, "onnx", "no_file")
    formats = {"onnx": "optional", "onnx-int8": "off", "torchscript-int8": "off", "program": "off"}
    (end,) = release([staged("linear", formats=formats | {"openvino": "optional"})])
    assert end.status is Status.RELEASED, end.reason
    manifest = read_manifest(found_in(home), found_in(home).record)
    (verdict,) = (each for each in manifest.verdicts if each.subject == "openvino")
    assert (verdict.outcome, verdict.reason) == (Outcome.NOT_RUN, "there is no onnx to make it from (PH-0679)")


def reader(folder: Path, *lacks: str) -> Path:
    """The Python of an environment like this one, without some packages."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    (there,) = (folder / "lib").glob("python3.*/site-packages")
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        name = entry.name.removeprefix("__editable__.").removeprefix("__editable___")
        if re.split(r"[-.]|_\d", name)[0] not in lacks:
            (there / entry.name).symlink_to(entry)
    return folder / "bin" / "python"


@pytest.mark.parametrize(
    "lacks, status, words",
    [
        (
            "packhouse_openvino",
            2,
            f"unavailable: linear/[0-9a-f]{{32}}: openvino: not run: install {PACKAGE} \\(PH-0151\\)",
        ),
        ("openvino", 64, f"refused: openvino is not installed; pip install {PACKAGE} \\(PH-0342\\)"),
    ],
)
def test_a_reader_without_a_package_says_which_one_to_install(home, staged, tmp_path, lacks, status, words):
    release([staged("linear", formats=REQUIRED)])
    python = reader(tmp_path / "reader", lacks)
    command = [python, "-m", "packhouse", "verify", "linear@latest", "--store", str(home / "store")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (status, "")
    assert re.fullmatch(f"{words}\n", done.stderr), done.stderr
