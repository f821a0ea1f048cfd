"""Verify: what was released verifies wherever it was copied, and whatever was changed since is named."""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from packhouse.artifact import Artifact
from packhouse.digest import canonical_json, digest_file
from packhouse.errors import DigestMismatch, LimitExceeded, NotFound, NotInstalled, PackhouseError, ReleaseInvalid
from packhouse.parity.golden_file import read_cases, write_cases
from packhouse.parity.judge import Case
from packhouse.parity.replay import replay
from packhouse.release.lookup import at_prefix, find
from packhouse.release.manifest import GOLDEN, MANIFEST, RECORD, Record, dump, load, release_key
from packhouse.spec.model import SPEC_FILE, Format
from packhouse.store import FileStore
from packhouse.trust import verify as module
from packhouse.trust.verify import verify
from tests.support.small_release import FORMATS, MODEL, Small, flip, reseal, sign_off

FILES = (GOLDEN, "model.int8.ts", "model.onnx", "model.pt2", "model.ts", SPEC_FILE, "weights.safetensors")
DOCUMENTS = (MANIFEST, RECORD)


@pytest.fixture
def small(release: Small, tmp_path: Path) -> Small:
    """A copy that may be spoiled."""
    return release.copied(tmp_path / "store")


@pytest.fixture
def in_onnx(onnx_release: Small, tmp_path: Path) -> Small:
    """A copy in ONNX alone, for what is not about a format."""
    return onnx_release.copied(tmp_path / "store")


def proven(small: Small) -> module.Verified:
    return verify(find(FileStore(small.store), f"{MODEL}/{small.release}"))


def refusal(small: Small) -> PackhouseError:
    with pytest.raises(PackhouseError) as caught:
        proven(small)
    assert "\n" not in str(caught.value)
    return caught.value


def test_a_release_verifies_by_channel_and_as_a_plain_folder(release, tmp_path):
    by_id = verify(find(FileStore(release.store), f"{MODEL}@latest"))
    copy = shutil.copytree(release.folder, tmp_path / "anywhere")
    assert by_id == verify(at_prefix(FileStore(copy), ""))
    assert by_id.formats == FORMATS
    assert by_id.files == len(FILES) == len(release.manifest.artifacts)
    assert by_id.record == digest_file(release.folder / RECORD)


def test_what_was_measured_is_not_part_of_the_proof(in_onnx):
    (in_onnx.folder / "report.json").write_text("other\n")
    (in_onnx.folder / "report.md").write_text("other\n")
    (in_onnx.folder / "report.html").write_text("other\n")
    assert proven(in_onnx).record == digest_file(in_onnx.folder / RECORD)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("place", [0, 0.5, 1], ids=["first", "middle", "last"])
def test_one_changed_bit_of_any_file_is_found(small, name, place):
    path = small.folder / name
    flip(path, int((path.stat().st_size - 1) * place))
    error = refusal(small)
    assert isinstance(error, DigestMismatch)
    assert name in str(error)
    assert "sha256 differs" in str(error)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_one_changed_bit_of_any_byte_of_a_document_is_found(small, name):
    whole = (small.folder / name).read_bytes()
    for position in range(0, len(whole), max(1, len(whole) // 60)):
        flip(small.folder / name, position)
        error = refusal(small)
        assert isinstance(error, (DigestMismatch, ReleaseInvalid, NotFound)), error
        (small.folder / name).write_bytes(whole)


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_cut_short_or_longer_is_found(small, name):
    whole = (small.folder / name).read_bytes()
    for other in (whole[:-1], whole + b"\0", b""):
        (small.folder / name).write_bytes(other)
        error = refusal(small)
        assert isinstance(error, DigestMismatch)
        assert name in str(error)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_found(small, name):
    (small.folder / name).unlink()
    error = refusal(small)
    assert str(error) == f"{name}: is in the manifest but not in the release (PH-0343)"


def test_a_release_without_its_manifest_or_record_is_none(small):
    (small.folder / MANIFEST).unlink()
    assert isinstance(refusal(small), NotFound)
    (small.folder / RECORD).unlink()
    error = refusal(small)
    assert isinstance(error, NotFound)
    assert "a release without a record.json does not exist" in str(error)


@pytest.mark.parametrize("name", ["extra.bin", "model.onnx.bak", "pyfunc/loader.py", "record.json.old"])
def test_a_file_that_nobody_vouches_for_is_found(small, name):
    (small.folder / name).parent.mkdir(exist_ok=True)
    (small.folder / name).write_bytes(b"x")
    assert f"{name}: is in the release but not in its manifest" in str(refusal(small))


def test_two_files_that_changed_their_names_are_found(small):
    one, two = small.folder / "model.ts", small.folder / "model.pt2"
    kept = one.read_bytes()
    shutil.copy(two, one)
    two.write_bytes(kept)
    error = refusal(small)
    assert isinstance(error, DigestMismatch)
    assert "model." in str(error)


def test_no_mix_of_two_releases_verifies(release, other_release, tmp_path):
    """All 30: any part from one, the rest from the other, in either's place."""
    parts = (RECORD, MANIFEST, "model.onnx", GOLDEN, "weights.safetensors")
    mixes = [mix for mix in itertools.product((0, 1), repeat=len(parts)) if 0 < sum(mix) < len(parts)]
    assert len(mixes) == 30
    for number, mix in enumerate(mixes):
        small = release.copied(tmp_path / str(number))
        for part, from_other in zip(parts, mix, strict=True):
            if from_other:
                shutil.copy(other_release.folder / part, small.folder / part)
        assert isinstance(refusal(small), (DigestMismatch, ReleaseInvalid))


def test_a_manifest_of_another_release_is_refused(small, other_release):
    shutil.copy(other_release.folder / MANIFEST, small.folder / MANIFEST)
    assert "manifest.json: is not what the record names" in str(refusal(small))
    manifest = (small.folder / MANIFEST).read_bytes()
    sign_off(small.folder, manifest, MODEL, small.release)
    assert "manifest.json: is of another release than the record" in str(refusal(small))


def test_a_record_of_another_model_is_refused(small):
    sign_off(small.folder, (small.folder / MANIFEST).read_bytes(), "another", small.release)
    error = refusal(small)
    assert str(error) == "manifest.json: is of another release than the record; got linear, want another (PH-0346)"


def test_a_record_that_names_another_size_is_refused(small):
    record = load(Record, (small.folder / RECORD).read_bytes(), where=RECORD)
    changed = record.model_copy(update={"manifest_size": record.manifest_size + 1})
    (small.folder / RECORD).write_bytes(dump(changed))
    assert "manifest.json: is not what the record names" in str(refusal(small))


@pytest.mark.parametrize("model, change", [("another", ""), (MODEL, "0" * 32), ("another", "0" * 32)])
def test_a_release_that_was_copied_under_another_name_or_id_is_refused(small, model, change):
    place = release_key(model, change or small.release)
    shutil.copytree(small.folder, small.store / place)
    with pytest.raises(ReleaseInvalid, match="stands in another release's place"):
        verify(at_prefix(FileStore(small.store), place))


def test_a_whole_other_release_in_its_place_is_refused(small, other_release):
    shutil.rmtree(small.folder)
    shutil.copytree(other_release.folder, small.folder)
    assert "stands in another release's place" in str(refusal(small))


BYTES = {
    "blanks": lambda data: json.dumps(json.loads(data)).encode() + b"\n",
    "a key twice": lambda data: data.replace(b'{"', b'{"model":"linear","', 1),
    "cut short": lambda data: data[: len(data) // 2],
    "unknown key": lambda data: canonical_json(json.loads(data) | {"extra": 1}),
    "nothing": lambda data: b"{}\n",
}


@pytest.mark.parametrize("spoil", BYTES.values(), ids=BYTES)
@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_document_in_other_words_is_refused_even_when_its_digest_is_right(small, name, spoil):
    data = spoil((small.folder / name).read_bytes())
    if name == MANIFEST:
        sign_off(small.folder, data, MODEL, small.release)
    else:
        (small.folder / name).write_bytes(data)
    error = refusal(small)
    assert isinstance(error, ReleaseInvalid)
    assert str(error).startswith(f"{name}: is not ")


# From here on, every digest is right: what is wrong is what the files do.


def test_a_spec_that_the_release_was_not_made_from_is_refused(small):
    with (small.folder / SPEC_FILE).open("ab") as file:
        file.write(b"\n# more\n")
    reseal(small)
    assert str(refusal(small)) == "package.toml: is not the spec that the release was made from (PH-0347)"


@pytest.mark.parametrize("name", [SPEC_FILE, GOLDEN])
def test_a_release_without_its_spec_or_its_golden_cases_is_refused(small, name):
    (small.folder / name).unlink()
    reseal(small)
    assert str(refusal(small)) == f"{name}: is not in the manifest (PH-0150)"


def test_a_format_of_other_weights_is_refused(small, other_release):
    for format in FORMATS:
        shutil.copy(other_release.folder / format.file, small.folder / format.file)
    reseal(small)
    for format, reason in replay(small.folder).items():
        assert reason.startswith("case 'batch 1': output 'y' ")
        assert ("signal-to-noise" if Format(format).int8 else "times the rounding of fp32") in reason
    error = str(refusal(small))
    assert error.startswith(f"{MODEL}/{small.release}: onnx: case 'batch 1': output 'y' is off by")


def test_a_format_that_is_no_model_is_refused(small):
    for format in FORMATS:
        (small.folder / format.file).write_bytes(b"nothing of the kind")
    reseal(small)
    found = replay(small.folder)
    assert list(found) == [format.value for format in FORMATS]
    assert all(reason.startswith("does not run: ") and "\n" not in reason for reason in found.values())


def test_a_program_that_carries_a_pickle_is_refused_before_it_is_loaded(small):
    program = torch.export.load(str(small.folder / "model.pt2"))
    program._example_inputs = ((torch.zeros(2, 16),), {})
    torch.export.save(program, str(small.folder / "model.pt2"))
    reseal(small)
    reason = replay(small.folder)["program"]
    assert reason == "does not run: ReleaseInvalid: model.pt2: data/sample_inputs/model.pt: carries a pickle (PH-0195)"


def test_golden_cases_that_prove_nothing_are_refused(in_onnx):
    golden = in_onnx.folder / GOLDEN
    first = read_cases(golden)[0]
    nothing = [Case("empty", first.inputs, {}, None, True)]
    for cases, words in ((nothing, "outputs are 'y', the model has none"), ([], "holds no cases")):
        write_cases(golden, cases)
        reseal(in_onnx)
        assert words in str(refusal(in_onnx))


def test_a_model_that_prints_verifies(small):
    class Prints(torch.nn.Module):
        def __init__(self, inner: torch.nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            print('{"torchscript": ""}')
            return self.inner(x)

    path = str(small.folder / "model.ts")
    torch.jit.save(torch.jit.script(Prints(torch.jit.load(path))), path)
    reseal(small)
    assert Format.TORCHSCRIPT in proven(small).formats


def test_a_format_that_nobody_ran_is_not_proven(small, monkeypatch):
    monkeypatch.setattr(module, "_replayed", lambda folder, where: {"onnx": ""})
    assert str(refusal(small)).endswith(": torchscript: nobody ran it (PH-0637)")


def test_formats_that_do_not_come_to_an_end_are_refused(small, monkeypatch):
    monkeypatch.setattr(module, "REPLAY_TIMEOUT_S", 0.01)
    error = refusal(small)
    assert isinstance(error, LimitExceeded)
    assert small.release in str(error)


def test_a_runtime_that_is_not_installed_says_nothing_about_the_release(small, monkeypatch):
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    error = refusal(small)
    assert isinstance(error, NotInstalled)
    assert error.exit_status == 64
    assert "onnxruntime and torch is not installed; pip install" in str(error)


def test_what_replays_a_release_gets_none_of_the_caller_s_credentials(small, monkeypatch):
    seen: dict[str, str] = {}

    def run(*_: object, env: dict[str, str], **__: object) -> subprocess.CompletedProcess[str]:
        seen.update(env)
        return subprocess.CompletedProcess([], 0, json.dumps({format.value: "" for format in FORMATS}), "")

    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
    monkeypatch.setattr(module.subprocess, "run", run)
    proven(small)
    assert seen
    assert "hunter2" not in seen.values()


def test_a_replay_that_dies_is_a_refusal_with_its_last_words(small, monkeypatch):
    monkeypatch.setattr(module.sys, "executable", "/bin/false")
    assert "its formats can not be run here: exit status 1" in str(refusal(small))


def test_the_model_s_class_can_not_be_imported_while_replaying(small):
    """And need not be: all formats of a release answer in the same process."""
    program = (
        "import sys, runpy\n"
        f"sys.argv = ['replay', {str(small.folder)!r}]\n"
        "runpy.run_module('packhouse.parity.replay', run_name='__main__')\n"
        "assert 'packhouse_test_architectures' not in sys.modules\n"
        "try:\n"
        "    import packhouse_test_architectures\n"
        "except ImportError as error:\n"
        "    sys.stderr.write(str(error))\n"
    )
    done = subprocess.run([sys.executable, "-I", "-c", program], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == {format.value: "" for format in FORMATS}
    assert done.stderr.endswith("packhouse_test_architectures holds model code: a release must load without it")


def test_verifying_is_not_led_astray_by_the_caller_s_folder_and_environment(in_onnx, tmp_path, monkeypatch):
    trap = tmp_path / "trap"
    trap.mkdir()
    (trap / "json.py").write_text("raise SystemExit('trapped')\n")
    monkeypatch.setenv("PYTHONPATH", str(trap))
    monkeypatch.chdir(trap)
    assert proven(in_onnx).files == len(in_onnx.manifest.artifacts)
    assert os.environ["PYTHONPATH"] == str(trap)


def test_an_artifact_can_not_be_written_outside_of_the_folder():
    with pytest.raises(ValueError, match="pattern"):
        Artifact(name="../../x", digest="sha256:" + "0" * 64, size=1, media_type="")


def test_the_documented_shell_commands_agree(small):
    """docs/release.md: a release is checked with jq and sha256sum alone."""
    if not shutil.which("jq"):
        pytest.skip("NOT RUN: jq is not installed: apt-get install jq")
    page = (Path(__file__).parents[3] / "docs" / "release.md").read_text("utf-8")
    (script,) = re.findall(r"^```sh\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    done = subprocess.run(["bash", "-e", "-c", script], cwd=small.folder, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("manifest: OK")
    assert done.stdout.count(": OK") == 1 + len(FILES)
    flip(small.folder / "model.onnx", 100)
    assert subprocess.run(["bash", "-e", "-c", script], cwd=small.folder, capture_output=True, check=False).returncode
