"""Released models that tests copy: each is made once in a session, and a test gets its own copy of what it left.

Making the smallest release takes seconds; copying one takes milliseconds. A test whose promise is about something that
happens after a release (signing, channels, MLflow, audit, `ls`, `show`, `verify`, `fetch`) asks for the fixture:

    def test_something(home, released):
        made = released()  # one release of `linear`, ONNX only, `latest` points at it
        made = released(signed=True)  # the same; the release and its channel are signed by `released_models.keys`
        made = released(channels=("latest", "latest"))  # a second one of other weights: `latest` is at #2
        made = released(channels=("latest", "other"))  # the same two, and `latest` is at the first one
        made = released(gates={"approve": True})  # further keywords go to packhouse.stage()
        made = released(name="churn", by=churn)  # staged by a function, called as by(stage, name, **options)

The copy lies where the fixtures `home` and `staged` put things: the store in `tmp_path/home/store`, the sources below
`tmp_path/sources`. The worker of the test (settings, `worker_context()`) is the one of the fixture `home`. It has no
signing key unless the test sets one, also where the release is signed.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from infra.sandbox.client import Sandbox
from infra.settings import settings
from infra.worker.context import WorkerContext, use
from packhouse.release.lookup import channels
from packhouse.store import open_store
from packhouse.trust.dsse import make_keys
from packhouse.trust.rollback_floors import Floors
from tests.support import staged

LATENCY_S = "0.01"
"""Seconds: long enough for one measurement. What is measured decides only which INT8 formats are kept."""

SOURCES = "sources"


@dataclass(frozen=True)
class Copy:
    """What was released, in a place that belongs to one test.

    Attributes:
        root: Holds `home` and `sources`.
        model: The model's name.
        sources: The URL of each source, in the order of their releases.
        releases: The id of each release, in that order.
    """

    root: Path
    model: str
    sources: tuple[str, ...]
    releases: tuple[str, ...]

    @property
    def home(self) -> Path:
        return self.root / "home"

    @property
    def store(self) -> Path:
        return self.home / "store"

    @property
    def source(self) -> str:
        """The source of the latest release."""
        return self.sources[-1]

    @property
    def release(self) -> str:
        """The id of the latest release."""
        return self.releases[-1]

    @property
    def name(self) -> str:
        """`model/release` of the latest release."""
        return f"{self.model}/{self.release}"

    def copied(self, to: Path) -> Copy:
        """Copies all of it to another root, beside what is there, and gives the copy.

        What the machine remembers of signed channels is kept under the store's URL, so it is written anew.
        """
        for each in (*(source.removeprefix("file://") for source in self.sources), self.home):
            place = to / Path(each).relative_to(self.root)
            shutil.copytree(each, place, dirs_exist_ok=True, ignore=shutil.ignore_patterns("signed"))
        moved = tuple(source.replace(f"file://{self.root}/", f"file://{to}/") for source in self.sources)
        made = replace(self, root=to, sources=moved)
        before, after = open_store(str(self.store)), open_store(str(made.store))
        for model, channel in channels(before, self.model):
            name = f"{model}@{channel}"
            if serial := Floors(self.home / "signed").least(before.url, name):
                Floors(made.home / "signed").remember(after.url, name, serial)
        return made


@contextmanager
def worker_in(root: Path, sandbox: Sandbox, **values: str) -> Iterator[None]:
    """Makes this process a worker whose home is `root/home`, with these settings and no others.

    Args:
        root: Where its home lies.
        sandbox: The warm fork server of the session.
        values: Settings, by their names in infra/settings.py.
    """
    with pytest.MonkeyPatch.context() as patch:
        for name in [each for each in os.environ if each.startswith("PACKHOUSE_") and "_TEST_" not in each]:
            patch.delenv(name)
        for name, value in {"home": str(root / "home"), "latency_s": LATENCY_S, **values}.items():
            patch.setenv(f"PACKHOUSE_{name.upper()}", value)
        settings.cache_clear()
        use(WorkerContext(settings(), sandbox))
        yield
    settings.cache_clear()
    use(None)


class ReleasedModels:
    """Makes each kind of release once, and hands out copies.

    Args:
        folder: Where the originals lie.
        sandbox: The warm fork server of the session.

    Attributes:
        keys: The private key and the public one, by which what is signed is signed.
    """

    def __init__(self, folder: Path, sandbox: Sandbox) -> None:
        self._folder, self._sandbox = folder, sandbox
        self._made: dict[str, Copy] = {}
        self.keys = make_keys(folder / "keys")

    def original(
        self,
        architecture: str = "linear",
        name: str = "",
        *,
        by: Callable[..., str] | None = None,
        signed: bool = False,
        channels: Sequence[str] = ("latest",),
        worker: Mapping[str, str] | None = None,
        **options: Any,
    ) -> Copy:
        """The release that these words describe, made if it was not yet. Nobody may change it: copy it.

        Args:
            architecture: Of the test architectures, without `test.`.
            name: The model's name; the architecture's by default.
            by: Stages the source instead, called as `by(stage, name, **options)`.
            signed: Whether the release and its channel are signed.
            channels: For each release, one after the other, the channel that moves to it. The second one has other
                weights (`hidden=8`), and so on.
            worker: Settings of the worker that makes it, such as `runtime_image`.
            options: Go to packhouse.stage().
        """
        called = f"{by.__module__}.{by.__qualname__}" if by else architecture
        words = json.dumps([called, name, signed, *channels, dict(worker or {}), options], sort_keys=True)
        if words not in self._made:
            root = self._folder / str(len(self._made))
            stage, model = partial(staged.stage, sources=root / SOURCES), name or architecture
            sources: list[str] = []
            ids: list[str] = []
            key = {"signing_key": str(self.keys[0])} if signed else {}
            with worker_in(root, self._sandbox, **key, **(worker or {})):
                for number, channel in enumerate(channels):
                    later = {"arguments": {"hidden": 8 * number}, "to": str(root / SOURCES / f"{model}-{number + 1}")}
                    given = options | (later if number else {})
                    sources.append(by(stage, name, **given) if by else stage(architecture, name, **given))
                    ids.append(_release(sources[-1], channel))
            self._made[words] = Copy(root, model, tuple(sources), tuple(ids))
        return self._made[words]


def _release(source: str, channel: str) -> str:
    """The id of the release."""
    from flows.release import released
    from flows.run_result import Status

    (end,) = released([source], channel)
    assert end.status is Status.RELEASED, end.line()
    return end.release


@pytest.fixture(scope="session")
def released_models(api: str, sandbox: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> ReleasedModels:
    """The originals, for fixtures of a session or a module; a test takes `released`."""
    return ReleasedModels(tmp_path_factory.mktemp("released"), sandbox)


@pytest.fixture
def released(home: Path, tmp_path: Path, released_models: ReleasedModels, sandbox: Sandbox) -> Callable[..., Copy]:
    """Gives a function that copies a finished release into this test's home; its keywords: `ReleasedModels.original`.

    It may be called several times, for several models.
    """

    def copy(*words: Any, **options: Any) -> Copy:
        made = released_models.original(*words, **options).copied(tmp_path)
        settings.cache_clear()
        use(WorkerContext(settings(), sandbox))
        return made

    return copy
