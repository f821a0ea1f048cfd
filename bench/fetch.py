"""The consumer's side and the signer's, against what they can not do without: moving bytes, and hashing them.

`make bench-fetch`, or `python -m bench.fetch [--smallest] [MB]`; without MB, a release of 1,000 MB. Fetch:
packhouse.fetch, from a folder and from moto's S3 server, against the slower of a bare download of the same files and
sha256 over them. Sign, and check a signature with all digests, against sha256. All in turn in one process; the median
of ROUNDS.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import packhouse
from infra.settings import Settings
from infra.worker.signer import signer
from packhouse.digest import digest_file
from packhouse.release.lookup import find
from packhouse.release.manifest import PROVENANCE, RECORD, SIGNATURE
from packhouse.store import FileStore, Store
from packhouse.trust.dsse import make_keys
from packhouse.trust.provenance import provenance
from packhouse.trust.signatures import Trusted, check_bytes
from tasks.jobs.measure import processor
from tests.servers.moto import moto
from tests.support.small_release import MODEL, Small, build, reseal
from tests.support.store_places import BUCKET, S3Place, signed_in

MB = 1_000_000
ROUNDS = 3
PREFIX = "bench-fetch"
GOAL_FETCH, GOAL_SIGN = 0.8, 0.5


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("megabytes", nargs="?", type=int, default=1000)
    parser.add_argument("--smallest", action="store_true", help="1 MB, one round")
    options = parser.parse_args()
    size, rounds = (MB, 1) if options.smallest else (options.megabytes * MB, ROUNDS)
    with tempfile.TemporaryDirectory(prefix="packhouse-fetch-") as name, moto() as endpoint:
        folder = Path(name)
        small = _release(folder, size)
        print(f"{processor()}, {os.cpu_count()} cores, {size // MB:,} MB, median of {rounds} rounds\n")
        print("| what | s | bare download s | sha256 s | of the slower |\n|---|---|---|---|---|")
        bench = Bench(small, folder, rounds)
        bench.fetches("folder", str(small.store), lambda name, to: shutil.copyfile(small.folder / name, to))
        place = S3Place("moto", endpoint)
        place.make_bucket()
        with signed_in(endpoint.access_key, endpoint.secret_key):
            store, client = place.open(PREFIX), place.client()
            _upload(store, small)
            prefix = f"{PREFIX}/{small.folder.relative_to(small.store).as_posix()}"
            bench.fetches(
                "S3 (moto)", store.url, lambda name, to: client.download_file(BUCKET, f"{prefix}/{name}", str(to))
            )
        bench.signs()
    print(f"\nGoals: fetch {GOAL_FETCH} of the slower of both, sign and check {GOAL_SIGN} of sha256.")
    return 0


def _release(folder: Path, size: int) -> Small:
    """A small model's release with large weights: valid by every digest."""
    small = build(folder / "store", folder / "work", seed=0)
    with (small.folder / "weights.safetensors").open("wb") as file:
        for _ in range(size // MB):
            file.write(os.urandom(MB))
    reseal(small)
    return small


def _upload(store: Store, small: Small) -> None:
    for path in small.store.rglob("*"):
        if path.is_file() and not path.relative_to(small.store).parts[0].startswith("."):
            store.put(path.relative_to(small.store).as_posix(), path, digest=digest_file(path))


@dataclass(frozen=True)
class Bench:
    small: Small
    folder: Path
    rounds: int

    def fetches(self, what: str, url: str, copy: Callable[[str, Path], object]) -> None:
        names = [artifact.name for artifact in self.small.manifest.artifacts]

        def fetched(to: Path) -> None:
            packhouse.fetch(f"{MODEL}@latest", to, store=url, floors=self.folder / "floors")

        def bare(to: Path) -> None:
            to.mkdir()
            for name in names:
                copy(name, to / name)
                with (to / name).open("rb") as file:
                    os.fsync(file.fileno())

        ours, theirs, hashed = self._seconds(fetched, bare, lambda _: _hash(self.small.folder))
        ratio = max(theirs, hashed) / ours
        print(f"| fetch, {what} | {ours:.2f} | {theirs:.2f} | {hashed:.2f} | {ratio:.2f} |", flush=True)

    def signs(self) -> None:
        small, signature = self.small, self.folder / SIGNATURE
        secret, public = make_keys(self.folder / "keys")
        by, trusted = signer(Settings(signing_key=str(secret))), Trusted.read([public])
        assert by is not None
        record = find(FileStore(small.store), f"{MODEL}@latest").record
        (small.folder / PROVENANCE).write_bytes(provenance(record, small.manifest))

        def sign(_: Path) -> None:
            signature.write_bytes(by.sign_folder(small.folder))

        def check(_: Path) -> None:
            check_bytes(signature.read_bytes(), (small.folder / RECORD).read_bytes(), small.manifest, trusted)
            _hash(small.folder)

        signed, checked, hashed = self._seconds(sign, check, lambda _: _hash(small.folder))
        print(f"| sign | {signed:.2f} | | {hashed:.2f} | {hashed / signed:.2f} |")
        print(f"| check a signature, and every digest | {checked:.2f} | | {hashed:.2f} | {hashed / checked:.2f} |")

    def _seconds(self, *acts: Callable[[Path], None]) -> list[float]:
        """The median seconds of each, in turn."""
        seconds: list[list[float]] = [[] for _ in acts]
        for _ in range(self.rounds):
            for number, act in enumerate(acts):
                to = self.folder / "to"
                shutil.rmtree(to, ignore_errors=True)
                os.sync()
                started = time.perf_counter()
                act(to)
                seconds[number].append(time.perf_counter() - started)
        return [statistics.median(each) for each in seconds]


def _hash(folder: Path) -> None:
    for path in folder.iterdir():
        with path.open("rb") as file:
            hashlib.file_digest(file, "sha256").digest()


if __name__ == "__main__":
    sys.exit(main())
