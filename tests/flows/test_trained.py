"""What is released is the model that was trained, and not another one that its weights fit."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.__main__ import _release as release_sources
from flows.run_result import Status
from packhouse.release.lookup import releases
from packhouse.release.manifest import REPORT_JSON
from packhouse.store import open_store
from tests.flows.test_bad_input import edit, rewrite, warm

__all__ = ["warm"]

pytestmark = [pytest.mark.flow, pytest.mark.usefixtures("api", "warm")]


def test_an_architecture_that_answers_otherwise_than_the_trained_model_is_refused(home, encoder):
    """Another number of heads leaves every shape as it was: the weights fit, and only the answers differ."""
    edit(r"num_attention_heads = 2", "num_attention_heads = 4")(Path(encoder.removeprefix("file://")))
    (end,) = release_sources([encoder], "latest")
    assert end.status is Status.REFUSED
    words = (
        "architecture 'examples.encoder' built here: does not answer as the trained model did: output 'hidden' of row "
    )
    assert end.reason.startswith(words), end.reason
    assert list(releases(open_store(str(home / "store")))) == []


def test_a_source_that_was_staged_without_answers_is_released_and_its_report_says_so(home, staged):
    source = staged("linear")
    rewrite("samples.safetensors", lambda arrays: arrays.pop("answer.y"))(Path(source.removeprefix("file://")))
    (end,) = release_sources([source], "latest")
    assert end.status is Status.RELEASED, end.reason
    report = (home / "store" / "linear" / "releases" / end.release / REPORT_JSON).read_text()
    assert "not compared with the trained model: the source has no answers of it" in report
