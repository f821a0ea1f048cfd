"""Keeps a release as this version makes it, for every later version to verify: `python -m tests.old_releases.make`.

Releases the demo's churn model, which takes text, signed by a key that is thrown away afterwards, and puts its folder,
its signed channel and the public key into tests/old_releases/VERSION. Measured files are left out. Run once for each
version, before it is published; what is there is never made again.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import packhouse
from packhouse.release.manifest import MEASURED
from packhouse.trust.dsse import make_keys

HERE = Path(__file__).resolve().parent
HOME = Path("/srv/packhouse")
"""A plain path, since the provenance names the source."""
MODEL = "churn"


def main() -> int:
    folder = HERE / packhouse.__version__
    if folder.exists():
        sys.stderr.write(f"{folder.name} is kept already\n")
        return 1
    with TemporaryDirectory() as name:
        secret, public = make_keys(Path(name) / "keys")
        environment = os.environ | {"PACKHOUSE_HOME": str(HOME), "PACKHOUSE_SIGNING_KEY": str(secret)}
        try:
            subprocess.run([sys.executable, "-m", "packhouse", "demo"], env=environment, check=True)
            (made,) = (HOME / "store" / MODEL / "releases").iterdir()
            shutil.copytree(HOME / "store" / MODEL / "channels", folder / "channels")
            shutil.copytree(made, folder / MODEL, ignore=shutil.ignore_patterns(*MEASURED))
        finally:
            shutil.rmtree(HOME, ignore_errors=True)
        shutil.copy(public, folder / "signing.pub.pem")
    return 0


if __name__ == "__main__":
    sys.exit(main())
