"""Seconds, CPU seconds and memory of one model from a module to its package, imports included, each in a process of its
own. packhouse also in a process that has released another model before, as a worker has."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from bench.peers.answer import Answer
from bench.peers.given import BERT, Given
from bench.peers.install import CanNot
from bench.peers.judged import same_bytes
from bench.peers.tools import PEERS, Peer, packhouse
from bench.process import Ran

KINDS = ("mlp", "cnn", "lstm", "transformer", BERT)
FORMATS = {
    "fp32": "packhouse: ONNX, TorchScript",
    "onnx": "packhouse: ONNX and its INT8",
    "all": "packhouse: all five formats",
}
MAKES = {
    "Model Navigator": "Model Navigator: ONNX, TorchScript", "Olive": "Olive: ONNX and its INT8",
    "optimum": "optimum: ONNX and its INT8",
}  # fmt: skip
COLD = ("fp32", "onnx")
"""What the peers make too; `make bench-line` has all five formats in a process of their own."""

TWICE = ("transformer", BERT)


@dataclass
class Made:
    """ran, answers: (tool, kind). warm: seconds of packhouse in a worker that is warm;
    warm_cpu: CPU seconds a model there, the mean of all. can_not: (tool, kind) -> why.
    same: tool -> whether a second run gave the same bytes: of ONNX, of INT8."""

    ran: dict[tuple[str, str], Ran] = field(default_factory=dict)
    answers: dict[tuple[str, str], Answer] = field(default_factory=dict)
    warm: dict[tuple[str, str], float] = field(default_factory=dict)
    warm_cpu: dict[str, float] = field(default_factory=dict)
    can_not: dict[tuple[str, str], str] = field(default_factory=dict)
    same: dict[str, list[str]] = field(default_factory=dict)


def run(models: dict[str, Given], folder: Path, api: str) -> Made:
    """The tools in turn for each model, so that all of them see the same machine."""
    made = Made()
    for kind in KINDS:
        for formats in COLD:
            (said,), ran = packhouse(api, folder / f"{formats}-{kind}", formats, str(models[kind].folder))
            made.ran[formats, kind], made.answers[formats, kind] = ran, said
        for peer in PEERS:
            try:
                _peer(peer, models[kind], folder / f"{peer.module}-{kind}", made)
            except CanNot as error:
                made.can_not[peer.name, kind] = str(error)
    for formats in FORMATS:
        _warm(models, folder / f"{formats}-warm", api, formats, made)
    return made


def _peer(peer: Peer, given: Given, out: Path, made: Made) -> None:
    said, ran = peer.run(given, out)
    made.ran[peer.name, given.kind], made.answers[peer.name, given.kind] = ran, said
    if given.kind in TWICE:
        _compare(made, peer.name, said, peer.run(given, out.with_name(f"{out.name}-again"))[0])


def _warm(models: dict[str, Given], out: Path, api: str, formats: str, made: Made) -> None:
    """The first model warms the worker; what it takes alone is taken off the CPU seconds."""
    first = str(models[KINDS[0]].folder)
    _, alone = packhouse(api, out.with_name(f"{out.name}-first"), formats, first)
    answers, ran = packhouse(api, out, formats, first, *(str(models[kind].folder) for kind in KINDS))
    made.warm_cpu[formats] = (ran.cpu_seconds - alone.cpu_seconds) / len(KINDS)
    for kind, said in zip(KINDS, answers[1:], strict=True):
        made.warm[formats, kind] = said.seconds
        if kind in TWICE and formats in COLD:
            _compare(made, formats, made.answers[formats, kind], said)


def _compare(made: Made, tool: str, one: Answer, other: Answer) -> None:
    for format in ("onnx", "int8"):
        if one.files.get(format) and other.files.get(format):
            word = "same" if same_bytes(one.files[format], other.files[format]) else "differ"
            made.same.setdefault(tool, []).append(f"{format} {word}")


def table(made: Made) -> list[str]:
    head = ["| tool | " + " | ".join(f"{kind}: s, CPU s, MB" for kind in KINDS) + " | same inputs twice |"]
    rows = [*head, "|---" * (len(KINDS) + 2) + "|"]
    for tool, title in (FORMATS | MAKES).items():
        same = ", ".join(sorted(set(made.same.get(tool, []))))
        if tool not in FORMATS or tool in COLD:
            rows.append(f"| {title} | " + " | ".join(_cell(made, tool, kind) for kind in KINDS) + f" | {same} |")
        if tool in FORMATS:
            warm = " | ".join(f"{made.warm[tool, kind]:.1f}" for kind in KINDS)
            rows.append(f"| {title}, warm worker | {warm} | mean of CPU s: {made.warm_cpu[tool]:.1f} |")
    return rows


def _cell(made: Made, tool: str, kind: str) -> str:
    if (tool, kind) in made.can_not:
        return f"can not: {made.can_not[tool, kind]}"
    if refused := made.answers[tool, kind].refused:
        return f"refused: {refused[:100]}"
    ran = made.ran[tool, kind]
    return f"{ran.seconds:.1f}, {ran.cpu_seconds:.1f}, {ran.peak_bytes / 1e6:.0f}"
