"""The tools, each run on one model in a process of its own."""

from __future__ import annotations

import os
import sys
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

    def run(self, given: Given, out: Path, *words: str) -> tuple[Answer, Ran]:
        """Raises CanNot: it can not be installed, or does not take such a model."""
        place = self.place()
        out.mkdir(parents=True)
        paths = {"PYTHONPATH": os.pathsep.join((str(place), str(ROOT)))}
        command = [sys.executable, "-m", f"bench.peers.{self.module}", str(given.folder), str(out), *words]
        ran = run(command, os.environ | paths, log=out / "log")
        said = _said(out, ran)
        if "can not" in said.notes:
            raise CanNot(said.notes["can not"])
        return said, ran


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
    answers = [_said(out / str(place), ran, log=out / "log") for place in range(len(asked))]
    lost = [said.refused for said in answers if f"exit status {NOT_PLANTED}" in said.refused]
    if lost:
        raise SystemExit(f"a fault could not be planted: {lost[0]}")
    return answers, ran


def _said(out: Path, ran: Ran, log: Path | None = None) -> Answer:
    said = answer.read(out)
    if ran.status == NOT_PLANTED or (said is None and ran.status == 0):
        raise SystemExit(f"{log or out / 'log'}: the fault could not be planted, or nothing was said")
    return said or Answer(refused=f"died with exit status {ran.status}")
