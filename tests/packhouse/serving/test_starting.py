"""What the server starts with, and what it refuses to start with: one line, an exit status, and nothing listens."""

from __future__ import annotations

import ast
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import onnx
import pytest

from packhouse.digest import digest_file
from packhouse.errors import PackhouseError
from packhouse.formats.processors import available, has_vnni
from packhouse.release.manifest import MANIFEST, PROVENANCE, RECORD, SIGNATURE, Processors, SqnrTolerance
from packhouse.serving.release import chosen, open_release
from packhouse.serving.settings import Choice
from packhouse.spec.model import Format
from packhouse.trust.dsse import make_keys
from packhouse.trust.signatures import Trusted
from tests.packhouse.serving.conftest import COMMAND, serve
from tests.packhouse.trust.test_signatures import by_key, signed
from tests.servers.place import free_ports
from tests.support import served_models
from tests.support.served_releases import write
from tests.support.small_release import of_format, reseal

ROOT = Path(__file__).resolve().parents[3]
NEEDED = ("manifest.json", "package.toml", "model.onnx", "golden.safetensors")


def start(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Of a server that is to end by itself."""
    given = os.environ | {"MODEL_DIR": str(folder), "HOST": "127.0.0.1", "PORT": str(free_ports(1)[0])} | environment
    return subprocess.run(COMMAND, env=given, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def part(release, tmp_path):
    """The part of a release that the server needs."""
    folder = tmp_path / "part"
    folder.mkdir()
    for name in NEEDED:
        shutil.copy(release.folder / name, folder / name)
    return folder


def opened(folder: Path, **changes):
    given = {"expected": None, "choice": Choice.AUTO, "vnni": True, "cuda": False, "golden": True}
    return open_release(folder, **(given | changes))


def refusal(folder: Path, **changes) -> str:
    with pytest.raises(PackhouseError) as caught:
        opened(folder, **changes)
    assert caught.value.exit_status == 1
    return str(caught.value)


@pytest.mark.parametrize("name", NEEDED)
def test_one_wrong_byte_is_refused_before_anything_is_parsed(part, name):
    data = bytearray((part / name).read_bytes())
    data[len(data) // 2] ^= 1
    (part / name).write_bytes(data)
    pinned = digest_file(part / "manifest.json") if name != MANIFEST else "sha256:" + "0" * 64
    done = start(part, PACKHOUSE_MANIFEST_DIGEST=pinned)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"refused: {name}: ")


@pytest.fixture
def signed_part(part, release, tmp_path):
    """A part of a signed release, and the key to trust."""
    secret, public = make_keys(tmp_path / "keys")
    whole = signed(release, by_key(secret), tmp_path / "signed")
    for name in (RECORD, SIGNATURE, PROVENANCE):
        shutil.copy(whole.folder / name, part / name)
    return part, public


def test_a_server_that_asks_for_a_signature_takes_a_part_of_a_signed_release(signed_part):
    part, public = signed_part
    assert opened(part, trusted=Trusted.read([public]))
    (part / PROVENANCE).unlink()
    assert opened(part, trusted=Trusted.read([public]))


@pytest.mark.parametrize("name", [RECORD, SIGNATURE])
def test_a_server_that_asks_for_a_signature_does_not_start_without_one(signed_part, name):
    part, public = signed_part
    (part / name).unlink()
    assert "a signature is asked for" in refusal(part, trusted=Trusted.read([public]))
    done = start(part, PACKHOUSE_TRUST=str(public))
    assert done.returncode == 1
    assert done.stderr.startswith(f"refused: {name}: is not there, and a signature is asked for")


def test_a_server_does_not_start_with_a_signature_of_another_key_or_release(signed_part, other_release, tmp_path):
    part, public = signed_part
    other_secret, other_public = make_keys(tmp_path / "other")
    assert "is not signed by anybody" in refusal(part, trusted=Trusted.read([other_public]))
    other = signed(other_release, by_key(other_secret), tmp_path / "other-signed")
    shutil.copy(other.folder / SIGNATURE, part / SIGNATURE)
    assert "is not what was signed" in refusal(part, trusted=Trusted.read([other_public]))
    assert "is not signed by anybody" in refusal(part, trusted=Trusted.read([public]))


def test_what_the_server_does_not_need_may_be_missing_but_not_be_wrong(part, release):
    assert opened(part).made.format is Format.ONNX
    shutil.copy(release.folder / "model.ts", part / "model.ts")
    assert opened(part).made.format is Format.ONNX
    with (part / "model.ts").open("ab") as file:
        file.write(b"x")
    assert "model.ts: size differs" in refusal(part)


def test_a_file_or_link_that_nobody_vouches_for_is_refused(part):
    (part / "extra.bin").write_bytes(b"")
    assert "extra.bin: is in the folder but not in the manifest" in refusal(part)
    (part / "extra.bin").unlink()
    (part / "model.ts").symlink_to("/etc/passwd")
    assert "model.ts: is no plain file" in refusal(part)


def test_a_model_car_is_served_through_the_link_that_kserve_makes_to_another_processs_root(part, tmp_path):
    """Before the link is there, the server ends and says what is missing: whoever started it starts it again."""
    link = tmp_path / "mnt"
    early = start(link)
    assert (early.returncode, "no such folder" in early.stderr) == (1, True), early.stderr
    with subprocess.Popen(["sleep", "60"]) as car:
        try:
            link.symlink_to(f"/proc/{car.pid}/root{part}")
            with serve(link, tmp_path / "log") as server:
                assert server.ask("/ready").status == 200
        finally:
            car.terminate()


def test_another_manifest_than_the_expected_one_is_refused(part):
    digest = digest_file(part / MANIFEST)
    assert opened(part, expected=digest).digest == digest
    assert "PACKHOUSE_MANIFEST_DIGEST" in refusal(part, expected="sha256:" + "0" * 64)


def test_a_record_must_be_the_manifest_s(release, other, part):
    shutil.copy(release.folder / "record.json", part / "record.json")
    opened(part)
    shutil.copy(other.folder / "record.json", part / "record.json")
    assert "manifest.json: is not what the record names" in refusal(part)


@pytest.fixture(scope="module")
def other(tmp_path_factory, release):
    """The same model, and another file of it: digests are right, answers are not."""
    small = release.copied(tmp_path_factory.mktemp("other") / "store")
    model = onnx.load(small.folder / "model.onnx")
    weights = model.graph.initializer[0]
    array = onnx.numpy_helper.to_array(weights) * 1.001
    weights.CopyFrom(onnx.numpy_helper.from_array(array, weights.name))
    (small.folder / "model.onnx").write_bytes(model.SerializeToString())
    reseal(small)
    return small


@pytest.mark.parametrize("name", ["package.toml", "golden.safetensors", "model.onnx"])
def test_what_is_needed_must_be_there(part, name):
    (part / name).unlink()
    assert f"{name}: is in the manifest but not in the folder" in refusal(part)


def test_a_model_that_answers_otherwise_is_never_ready_and_says_why(other, tmp_path):
    with serve(other.folder, tmp_path / "log", until="/health") as server:
        while (found := server.ask("/ready")).json["status"] == "starting":
            pass
        assert (found.status, found.json["status"]) == (503, "refused")
        assert found.json["reason"].startswith("case 'batch 1': output 'y' is off by")
        assert server.ask("/v2/health/live").status == 200
        for path in ("/v2/health/ready", "/v2/models/linear/ready"):
            assert server.ask(path).status == 503
        reply = server.ask("/predict", {"rows": [[0.0] * 16]})
        assert (reply.status, reply.headers["retry-after"]) == (503, "1")
        assert "the server is not ready: refused" in reply.json["error"]


def test_the_format_follows_the_release_the_processor_and_the_operator(tmp_path):
    def manifest(processors: Processors):
        folder = tmp_path / processors.value
        made = served_models.matrix(folder)
        data = (folder / "model.onnx").read_bytes()
        formats = tuple(
            of_format(format, SqnrTolerance(sqnr_db=30), processors=bound)
            for format, bound in ((Format.ONNX, Processors.ANY), (Format.ONNX_INT8, processors))
        )
        files = {Format.ONNX: data, Format.ONNX_INT8: data}
        toml = (folder / "package.toml").read_bytes()
        return write(folder, toml, files, golden(folder), outputs=made.outputs, model="matrix", formats=formats)

    def golden(folder):
        from packhouse.parity.golden_file import read_cases

        return [*read_cases(folder / "golden.safetensors")]

    def choose(manifest, choice=Choice.AUTO, *, vnni=True, cuda=False, there=("model.onnx", "model.int8.onnx")):
        return chosen(manifest, choice, vnni=vnni, cuda=cuda, there=set(there)).format

    anywhere, bound = manifest(Processors.ANY), manifest(Processors.VNNI)
    assert choose(anywhere, vnni=False) is choose(bound, vnni=True) is Format.ONNX_INT8
    assert choose(bound, vnni=False) is choose(bound, cuda=True) is Format.ONNX
    assert choose(bound, there=["model.onnx"]) is choose(bound, Choice.ONNX) is Format.ONNX
    with pytest.raises(PackhouseError, match="judged on processors with VNNI"):
        choose(bound, Choice.ONNX_INT8, vnni=False)


def test_a_format_that_the_release_has_not_is_refused(part):
    assert "onnx-int8: the release has no such format" in refusal(part, choice=Choice.ONNX_INT8)
    assert "int8: the release has no such format" in refusal(part, choice="int8")


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("PACKHOUSE_THREADS", "many", "unable to parse"),
        ("PACKHOUSE_FORMAT", "INT8", "'auto', 'onnx' or 'onnx-int8'"),
        ("PACKHOUSE_MANIFEST_DIGEST", "abc", "match pattern"),
        ("PORT", "70000", "65535"),
    ],
)
def test_a_setting_of_another_form_is_refused_by_its_name(part, name, value, words):
    done = start(part, **{name: value})
    assert done.returncode == 1
    assert done.stderr.startswith(f"refused: {name}: ")
    assert words in done.stderr


def test_a_port_that_is_taken_is_unavailable(part):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = start(part, PORT=str(taken.getsockname()[1]))
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("unavailable: 127.0.0.1:")


def test_processors_are_those_of_affinity_and_quota(tmp_path):
    assert available(tmp_path) == len(os.sched_getaffinity(0))
    (tmp_path / "cpu.max").write_text("150000 100000\n")
    assert available(tmp_path) == 1
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert available(tmp_path) == len(os.sched_getaffinity(0))


def test_vnni_is_a_flag_of_the_processor(tmp_path):
    info = tmp_path / "cpuinfo"
    assert not has_vnni(info)
    for flags, expected in (("sse2 avx2 avx_vnni", True), ("sse2 avx2 not_avx_vnni", False)):
        info.write_text(f"processor : 0\nflags\t\t: {flags}\n")
        assert has_vnni(info) is expected


def test_the_server_imports_packhouse_and_nothing_else_of_ours_or_of_the_line():
    allowed = {"packhouse", "fastapi", "starlette", "uvicorn", "numpy", "onnxruntime", "orjson", "pydantic"}
    allowed |= {"prometheus_client", "safetensors"} | set(sys.stdlib_module_names)
    for path in (ROOT / "packhouse" / "serving").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                assert name.startswith("packhouse.serving") or name.split(".")[0] in allowed, f"{path.name}: {name}"


def test_the_server_loads_no_framework_and_the_health_check_nothing_at_all():
    script = """
import sys
import packhouse.serving.healthcheck
ours = {name for name in sys.modules if name.startswith("packhouse")}
assert ours == {"packhouse", "packhouse.serving", "packhouse.serving.healthcheck"}, ours
assert not {"fastapi", "numpy", "pydantic"} & set(sys.modules), "health check"
import packhouse.serving.__main__
print(sorted({"torch", "prefect", "mlflow", "boto3", "onnx", "transformers"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == "[]\n"
