"""What the wheel's commands do in an empty folder, in a fresh environment: `make wheel-check`."""

from __future__ import annotations

import json
import re
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from packhouse.release.manifest import GOLDEN
from tests.servers.place import free_ports
from tests.servers.prefect import prefect_server
from tests.support.environments import Environment
from tests.support.followed import Shell

pytestmark = [pytest.mark.long, pytest.mark.server, pytest.mark.timeout(1200)]

DEMO = ("churn", "digits-cnn", "digits-lstm")
READY_S = 120


@dataclass(frozen=True)
class Demo:
    """The wheel's environment after `packhouse demo`. folder: the current one, empty before. said: by the command."""

    environment: Environment
    folder: Path
    said: str

    def packhouse(self, *arguments: str, **variables: str) -> str:
        """What a command prints, which ends well."""
        done = self.environment.run("packhouse", *arguments, cwd=self.folder, **variables)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def shell(self, log: Path, **variables: str) -> Shell:
        return Shell(self.folder, self.environment.variables(**variables), log)

    @property
    def home(self) -> Path:
        """Where the demo's sources and releases lie."""
        return self.environment.home / ".packhouse"


@pytest.fixture(scope="module")
def demo(installed: Environment, tmp_path_factory: pytest.TempPathFactory) -> Demo:
    folder = tmp_path_factory.mktemp("empty")
    done = installed.run("packhouse", "demo", cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return Demo(installed, folder, done.stdout)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with prefect_server(tmp_path_factory.mktemp("prefect"), {}) as url:
        yield url


def test_the_demo_releases_verifies_and_leaves_the_folder_empty(demo):
    for model in DEMO:
        assert re.search(rf"^released {model}/[0-9a-f]{{32}} latest#1$", demo.said, re.MULTILINE)
        assert re.search(rf"^verified {model}/[0-9a-f]{{32}} record ", demo.said, re.MULTILINE)
    assert list(demo.folder.iterdir()) == []


def test_the_demo_finds_everything_unchanged_whatever_lies_in_the_current_folder(demo, tmp_path):
    for name in ("flows/__main__.py", "tasks.py", "infra.py", "train.py", "examples/demo.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("raise SystemExit('the code of the current folder ran')")
    done = demo.environment.run("packhouse", "demo", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    assert [line.split("/")[0] for line in said] == [f"unchanged {model}" for model in DEMO]


def test_a_release_and_its_channel_are_signed_by_a_key(demo, tmp_path):
    demo.packhouse("keys", str(tmp_path))
    release = demo.packhouse("ls", "churn").split()[0]
    key = {"PACKHOUSE_SIGNING_KEY": str(tmp_path / "signing.pem")}
    assert demo.packhouse("sign", release, "churn@latest", **key).count("signed churn") == 2
    public = str(tmp_path / "signing.pub.pem")
    assert " signed by key " in demo.packhouse("verify", "churn@latest", "--trust", public)


def test_a_release_is_served_and_answers_its_golden_case(demo, tmp_path):
    served = Path(demo.packhouse("fetch", "digits-cnn@latest", str(tmp_path / "digits")).strip())
    assert (served / GOLDEN).is_file()
    (port,) = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    with demo.shell(tmp_path / "log", HOST="127.0.0.1", PORT=str(port)) as shell:
        shell.type(f"packhouse serve '{served}' &")
        ready, said = shell.type(
            f"curl --silent --fail --retry {READY_S} --retry-delay 1 --retry-all-errors {url}/ready"
        )
        assert ready == 0, said[-3000:]
        image = [[[0.5] * 8] * 8]
        body = json.dumps({"inputs": {"image": [image]}}).encode()
        asked = urllib.request.Request(f"{url}/predict", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(asked) as answer:
            (logits,) = json.load(answer)["outputs"]["logits"]
    assert len(logits) == 10
    assert '"event": "stopped"' in (tmp_path / "log").read_text()


def test_deploy_puts_all_onto_a_server_and_a_worker_of_the_wheel_releases(demo, server, tmp_path):
    api = {"PREFECT_API_URL": server, "PREFECT_HOME": str(tmp_path / "prefect")}
    done = demo.environment.run("packhouse", "deploy", cwd=demo.folder, **api)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("deployment ") == 6
    start = done.stderr.splitlines()[-1]
    assert start.startswith(f"PACKHOUSE_WORKER={demo.packhouse('deploy', '--folder').strip()} prefect worker start ")

    # the demo's architectures are in no installed package; a team's own are
    examples = demo.environment.packages / "packhouse" / "_worker" / "examples"
    worker = api | {"PACKHOUSE_HOME": str(tmp_path / "home"), "PYTHONPATH": str(examples)}
    source = json.dumps([str(demo.home / "sources" / "digits-cnn")])
    with demo.shell(tmp_path / "log", PREFECT_WORKER_QUERY_SECONDS="1", **worker) as shell:
        shell.type(f"{start} &")
        status, said = shell.type(f"prefect deployment run release/release --param 'sources={source}' --watch")
    assert status == 0, said[-3000:]
    released = demo.packhouse("ls", "digits-cnn", PACKHOUSE_HOME=str(tmp_path / "home"))
    assert released == demo.packhouse("ls", "digits-cnn"), "the same id as of the run without a server"


def test_wrong_usage_of_deploy_is_one_line(demo):
    done = demo.environment.run("packhouse", "deploy", "--no-such-option", cwd=demo.folder)
    assert (done.returncode, done.stdout) == (64, "")
    assert done.stderr == "packhouse deploy: unrecognized arguments: --no-such-option\n"
