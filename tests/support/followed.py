"""A page's steps, followed as a reader does: files are written as shown, commands typed in one shell, outputs compared.

A block that begins with a comment that is a path, such as `# acme-models/pyproject.toml`, is that file. In a `console`
block, `$ ` begins a command; the lines below it must come, in their order, where `…` stands for anything.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"# ([\w./-]+\.\w+)\n")
END = "::ended::"


@dataclass(frozen=True)
class Step:
    """A file to write, or a command and what it prints."""

    file: str = ""
    text: str = ""
    command: str = ""
    printed: tuple[str, ...] = ()


def steps(page: str, heading: str) -> list[Step]:
    """The steps below a heading of a page in Markdown, to the next heading of its level."""
    level = heading.split(" ")[0]
    section = re.search(rf"^{re.escape(heading)}$(.*?)(?=^{level} |\Z)", page, re.MULTILINE | re.DOTALL)
    assert section, heading
    found: list[Step] = []
    for language, body in FENCE.findall(section[1]):
        if language == "console":
            found += _commands(body)
        elif named := FILE.match(body):
            found.append(Step(file=named[1], text=body))
    return found


def _commands(body: str) -> list[Step]:
    found: list[Step] = []
    for line in body.splitlines():
        if line.startswith("$ "):
            found.append(Step(command=line.removeprefix("$ ")))
        else:
            found[-1] = Step(command=found[-1].command, printed=(*found[-1].printed, line))
    return found


def missing(printed: tuple[str, ...], output: str) -> list[str]:
    """Those lines that the output does not have, or not in this order."""
    lines, gone = iter(output.splitlines()), []
    for wanted in printed:
        pattern = ".*".join(re.escape(part) for part in wanted.split("…"))
        if not any(re.fullmatch(pattern, line.rstrip()) for line in lines):
            gone.append(wanted)
    return gone


class Shell:
    """One interactive shell: what it sets, where it goes and what it starts stay from one command to the next.

    Args:
        folder: The current folder at the start.
        environment: All of it.
        log: Gets all that is printed.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str], log: Path) -> None:
        self._log = log
        self._out = log.open("ab")
        self._process = subprocess.Popen(
            ["bash", "--noprofile", "--norc"],
            cwd=folder,
            env=dict(environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._out,
            text=True,
            start_new_session=True,
        )
        self._write(f"exec 9>&1 >>'{log}' 2>&1; set -m")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Ends what was started in the background, and the shell."""
        self._ask('for job in $(jobs -p); do kill -TERM -- "-$job"; done; wait')
        self._process.communicate()
        self._out.close()
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return  # nothing is left of it

    def type(self, command: str) -> tuple[int, str]:
        """The exit status of a command, and what was printed meanwhile."""
        before = self._log.stat().st_size
        status = self._ask(command)
        with self._log.open("rb") as file:
            file.seek(before)
            return status, file.read().decode(errors="replace")

    def _ask(self, command: str) -> int:
        assert self._process.stdout
        # 9 is where this reads, which no command may write to; nor may it read what is typed next
        self._write(f"{{ {command}\n}} 9>&- </dev/null\necho {END}$? >&9")
        line = self._process.stdout.readline()
        assert line.startswith(END), f"the shell has ended: {self._log.read_text(errors='replace')[-3000:]}"
        return int(line.removeprefix(END))

    def _write(self, line: str) -> None:
        assert self._process.stdin
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()


def follow(shell: Shell, folder: Path, wanted: list[Step], replaced: Mapping[str, str]) -> None:
    """Carries the steps out. Fails at the first command that fails, or that prints something else.

    Args:
        shell: Where commands are typed.
        folder: Where files are written.
        wanted: The steps.
        replaced: Text of a command -> what is typed for it, such as a port that is free here.
    """
    for step in wanted:
        if step.file:
            (folder / step.file).parent.mkdir(parents=True, exist_ok=True)
            (folder / step.file).write_text(step.text)
            continue
        command = step.command
        for old, new in replaced.items():
            command = command.replace(old, new)
        status, output = shell.type(command)
        assert status == 0, f"$ {command}\n{output[-3000:]}"
        gone = missing(step.printed, output)
        assert not gone, f"$ {command}\nwanted {gone}, got\n{output[-3000:]}"
