"""Every bad input is refused: by the right class, for the named reason, inside its limits, and without a trace.

A case is a folder `<kind>/<case>/`: make.py builds the input when the test runs (`make(folder) -> Path`, or
`VARIANTS`, a dict of such functions where one reason has many faces), README says why, expect.toml says what must
come of it. make.py may also set EXPECTED (the architecture's tensors) and ALIASES. A new case needs no code here.
"""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import sys
import time
import tomllib
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest
import torch

from packhouse.errors import PackhouseError
from tasks.jobs.validate_weights import check
from tests.corpus import builders

HERE = Path(__file__).parent
MODULES: dict[Path, ModuleType] = {}


class Case(NamedTuple):
    folder: Path
    variant: str

    def __str__(self) -> str:
        name = f"{self.folder.parent.name}/{self.folder.name}"
        return f"{name}[{self.variant}]" if self.variant else name


def _module(folder: Path) -> ModuleType:
    """The case's make.py."""
    if folder not in MODULES:
        spec = importlib.util.spec_from_file_location(f"corpus_{folder.parent.name}_{folder.name}", folder / "make.py")
        assert spec
        assert spec.loader
        MODULES[folder] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(MODULES[folder])
    return MODULES[folder]


def _cases() -> list[Case]:
    folders = sorted(path.parent for path in HERE.glob("*/*/make.py"))
    return [Case(folder, variant) for folder in folders for variant in getattr(_module(folder), "VARIANTS", {"": None})]


@dataclass(frozen=True)
class Outcome:
    """What a child said, and what it cost. answer: the error's document, or {'passed': ...}."""

    answer: dict[str, Any]
    status: int
    seconds: float
    mib: float


FORBIDDEN = ("os.system", "os.exec", "os.posix_spawn", "os.fork", "os.forkpty", "subprocess.Popen", "socket.",
             "ctypes.", "pty.", "ftplib.", "urllib.", "webbrowser.", "os.kill", "os.putenv", "pickle.find_class",
             "shutil.", "os.symlink", "os.chmod", "code.__new__")  # fmt: skip


def _watch(workdir: Path) -> list[str]:
    """From here on, whatever this process does to the world outside its work folder is written down."""
    seen: list[str] = []

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event.startswith(FORBIDDEN):
            seen.append(event)
        elif event == "open" and _writes(arguments[1]) and not str(arguments[0]).startswith(str(workdir)):
            seen.append(f"open {arguments[0]}")

    sys.addaudithook(hook)
    return seen


def _writes(mode: object) -> bool:
    return isinstance(mode, str) and bool(set(mode) & set("wax+"))


def _in_child(path: Path, workdir: Path, module: ModuleType, seconds: int) -> Outcome:
    """Runs the check in a forked child, so that its time and memory are its own and its death is not ours."""
    expected = getattr(module, "EXPECTED", None) or builders.expected(builders.healthy())
    reader, writer = os.pipe()
    if (child := os.fork()) == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)  # pytest-timeout's would raise, and be an answer
        signal.alarm(seconds)
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew, from here
        before, started = _memory()["VmRSS"], time.monotonic()
        os.chdir(workdir)
        torch.set_num_threads(1)
        traces = _watch(workdir)
        try:
            done = check(
                weights=str(path), expected=expected, aliases=getattr(module, "ALIASES", {}), out=str(workdir / "out")
            )
            answer: dict[str, Any] = {"passed": dict(done)}
        except PackhouseError as error:
            answer = {**error.document(), "line": str(error)}
        except BaseException as error:
            answer = {"error": type(error).__name__, "line": repr(error)}
        cost = {"seconds": time.monotonic() - started, "mib": (_memory()["VmHWM"] - before) / 1024}
        os.write(writer, json.dumps({**answer, "traces": traces, **cost}).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        said = pipe.read()
    answer = json.loads(said or b"{}")
    return Outcome(answer, os.waitpid(child, 0)[1], answer.get("seconds", seconds), answer.get("mib", 0))


def _memory() -> dict[str, int]:
    """KiB, by the kernel's names: VmRSS now, VmHWM at most."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return {line.split(":")[0]: int(line.split()[1]) for line in lines if line.startswith("Vm")}


@pytest.mark.parametrize("case", _cases(), ids=str)
def test_bad_input_is_refused_by_name_and_leaves_no_trace(case: Case, tmp_path: Path) -> None:
    module = _module(case.folder)
    want = tomllib.loads((case.folder / "expect.toml").read_text())
    want |= want.pop("variants", {}).get(case.variant, {})
    source, workdir = tmp_path / "source", tmp_path / "work"
    source.mkdir()
    workdir.mkdir()
    path = (module.VARIANTS[case.variant] if case.variant else module.make)(source)

    outcome = _in_child(path, workdir, module, want["seconds"])

    assert outcome.status == 0, f"the child died: {outcome}"
    assert outcome.answer.get("error") == want["error"], outcome.answer
    phrase = want["phrase"].replace("{variant}", case.variant)
    assert phrase in outcome.answer["line"], outcome.answer["line"]
    assert outcome.answer["line"].isprintable()
    assert outcome.answer["traces"] == []
    assert outcome.mib <= want["mib"], f"{outcome.mib:.0f} MiB"
    assert not list(tmp_path.rglob(builders.CANARY))
    assert not list(workdir.iterdir()), "a refused input left something in the work folder"


def test_every_case_says_why() -> None:
    for folder in {case.folder for case in _cases()}:
        assert (folder / "README").read_text().strip(), folder


def test_a_payload_would_touch_the_canary(tmp_path: Path) -> None:
    """The watch itself works: unpickled by someone careless, the payload leaves the trace that the cases look for."""
    import pickle

    pickle.loads(builders.pickled(builders.Payload(tmp_path), 2))
    assert (tmp_path / builders.CANARY).exists()
