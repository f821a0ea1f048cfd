"""The tools, each run on one model in a process of its own."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from bench.api import ROOT, environment
from bench.peers import answer
from bench.peers.answer import Answer
from bench.peers.faults import NOT_PLANTED
from bench.peers.given import Given
from bench.peers.install import CanNot, installed
from bench.process import Ran, run


@dataclass(frozen=True)
class Peer:
    """module: of bench.peers. requirements: the file that is installed."""

    name: str
    module: str
    requirements: str

    def place(self) -> Path:
        """Where it is installed. Raises CanNot."""
        return _place(self.requirements)

    def run(self, given: Given, out: Path, *mode: str) -> tuple[Answer, Ran]:
        """Raises CanNot: it can not be installed, or does not take such a model."""
        said, ran = self.run_all([(given, "")], out, *mode)
        return said[0], ran

    def run_all(self, asked: Sequence[tuple[Given, str]], out: Path, *mode: str) -> tuple[list[Answer], Ran]:
        """asked: models, each with a fault or ""."""
        paths = {"PYTHONPATH": os.pathsep.join((str(self.place()), str(ROOT)))}
        out.mkdir(parents=True)
        places = [out / str(place) for place in range(len(asked))]
        jobs = [
            word for (given, fault), mine in zip(asked, places, strict=True) for word in (given.folder, mine, fault)
        ]
        command = [sys.executable, "-m", f"bench.peers.{self.module}", *mode, *map(str, jobs)]
        ran = run(command, os.environ | paths, log=out / "log")
        answers = [_said(mine, ran, out / "log") for mine in places]
        for said in answers:
            if "can not" in said.notes:
                raise CanNot(said.notes["can not"])
        return answers, ran


NAVIGATOR = Peer("Model Navigator", "with_navigator", "navigator")
OLIVE = Peer("Olive", "with_olive", "olive")
OPTIMUM = Peer("optimum", "with_optimum", "optimum")
PEERS = (NAVIGATOR, OLIVE, OPTIMUM)


@cache
def _place(requirements: str) -> Path:
    return installed(requirements)


def packhouse(api: str, out: Path, formats: str, *asked: str) -> tuple[list[Answer], Ran]:
    """asked: folders of models, each with a colon and a fault where its exporter is to be broken."""
    out.mkdir(parents=True)
    command = [sys.executable, "-m", "bench.peers.with_packhouse", str(out), formats, *asked]
    ran = run(command, environment(out, api, "worker"), log=out / "log")
    answers = [_said(out / str(place), ran, out / "log") for place in range(len(asked))]
    lost = [said.refused for said in answers if f"exit status {NOT_PLANTED}" in said.refused]
    if lost:
        raise SystemExit(f"a fault could not be planted: {lost[0]}")
    return answers, ran


def _said(out: Path, ran: Ran, log: Path) -> Answer:
    said = answer.read(out)
    if ran.status == NOT_PLANTED or (said is None and ran.status == 0):
        raise SystemExit(f"{log}: a fault could not be planted, or nothing was said\n{log.read_text()[-2000:]}")
    return said or Answer(refused=f"died with exit status {ran.status}")
