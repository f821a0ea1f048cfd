"""The local cache: two workers on one are no trouble, and a place where it can not be is named."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from infra.worker.cache import UNUSED_S, Cache
from packhouse.artifact import Beside
from packhouse.errors import StoreUnavailable

AT_ONCE, ROUNDS = 8, 100


def test_many_at_once_may_give_the_same_bytes_the_same_second_name(tmp_path):
    caches = [Cache(tmp_path / "cache") for _ in range(AT_ONCE)]
    errors: list[BaseException] = []
    for number in range(ROUNDS):
        artifact = caches[0].write(b"bytes %d" % number, name="a.safetensors", media_type="m")
        together = threading.Barrier(AT_ONCE)

        def go(cache: Cache, artifact=artifact, together=together) -> None:
            together.wait()
            try:
                renamed = cache.also(artifact, name="weights.safetensors", media_type="m")
                assert cache.path(renamed).read_bytes() == cache.path(artifact).read_bytes()
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=go, args=(cache,)) for cache in caches]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert errors == []


def test_bytes_that_come_again_leave_the_file_in_place_that_a_child_may_be_held_to(tmp_path):
    """Landlock's rules are bound to a file, not to its name."""
    cache, other = Cache(tmp_path / "cache"), Cache(tmp_path / "cache")
    artifact = cache.write(b"same", name="model.onnx", media_type="m")
    before = cache.path(artifact).stat().st_ino
    assert other.write(b"same", name="model.onnx", media_type="m") == artifact
    assert cache.path(artifact).stat().st_ino == before
    assert not list((tmp_path / "cache" / "steps").iterdir())


def test_what_no_run_asked_for_in_two_weeks_goes_and_what_is_in_use_stays(tmp_path):
    cache = Cache(tmp_path / "cache")
    old, used = (cache.write(data, name="model.onnx", media_type="m") for data in (b"old", b"used"))
    for artifact in (old, used):
        os.utime(cache.path(artifact), (time.time() - UNUSED_S - 60,) * 2)
    cache.path(used)
    again = Cache(tmp_path / "cache")
    assert again.holds(used)
    assert not again.holds(old)
    assert len(list(again.blobs.iterdir())) == 1


def test_what_a_power_cut_left_is_replaced(tmp_path):
    cache = Cache(tmp_path / "cache")
    artifact = cache.write(b"whole", name="model.onnx", media_type="m")
    cache.path(artifact).chmod(0o600)
    cache.path(artifact).write_bytes(b"")
    assert not cache.holds(artifact)
    cache.write(b"whole", name="model.onnx", media_type="m")
    assert cache.path(artifact).read_bytes() == b"whole"


@pytest.mark.parametrize("place", [Path("/proc/nope"), Path(__file__), Path(__file__) / "below"])
def test_a_place_where_no_cache_can_be_is_unavailable_and_named(place):
    with pytest.raises(StoreUnavailable) as caught:
        Cache(place)
    assert str(caught.value).startswith(str(place))
    assert "PACKHOUSE_CACHE" in str(caught.value)


def test_data_that_rotted_beside_its_graph_is_replaced(tmp_path):
    cache = Cache(tmp_path / "cache")
    graph = cache.write(b"graph", name="model.onnx", media_type="x")
    data = cache.write(b"weights", name="model.onnx.data", media_type="x")
    pair = Beside(file=graph, data=data)
    _, beside = cache.beside(pair)
    beside.chmod(0o600)
    beside.write_bytes(b"rotten!")
    cache.forget(data)
    cache.write(b"weights", name="model.onnx.data", media_type="x")
    _, beside = cache.beside(pair)
    assert beside.read_bytes() == b"weights"
    assert beside.name == "model.onnx.data"
    assert sorted(path.name for path in beside.parent.iterdir()) == ["model.onnx", "model.onnx.data"]
