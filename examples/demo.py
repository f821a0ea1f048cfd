"""The demo: trains small real models, releases them end to end on embedded defaults, verifies and loads them back.

`packhouse demo` runs it. The second run finds everything unchanged.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from train import TRAININGS

NAMES = ("churn", "digits-cnn", "digits-lstm")

HOME = Path(os.environ["PACKHOUSE_HOME"])
SOURCES = HOME / "sources"


def say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


def packhouse(*arguments: str) -> int:
    """The command itself, as a user types it."""
    return subprocess.run([sys.executable, "-m", "packhouse", *arguments], check=False).returncode


def main() -> int:
    started = time.monotonic()
    for name in NAMES:
        if not (SOURCES / name / "package.toml").exists():
            say(f"training {name} ...")
            TRAININGS[name](str(SOURCES / name))
    say("releasing ...")
    status = packhouse("release", *(str(SOURCES / name) for name in NAMES))
    if status == 3:
        say(f"everything is unchanged ({time.monotonic() - started:.0f} s); the releases lie in {HOME / 'store'}")
        return 0
    if status:
        return status
    for name in NAMES:
        status = status or packhouse("show", f"{name}@latest") or packhouse("verify", f"{name}@latest")
    say(f"done in {time.monotonic() - started:.0f} s; the releases lie in {HOME / 'store'}")
    return status


if __name__ == "__main__":
    sys.exit(main())
