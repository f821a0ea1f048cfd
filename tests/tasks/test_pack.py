"""The manifest says what is true: which file is opened with what, how it was made, what was compared, what is legal."""

from __future__ import annotations

import numpy as np
import pytest

from infra.worker.context import worker_context
from packhouse.digest import digest_bytes
from packhouse.errors import Refused
from packhouse.parity.probes import not_tried, read_samples, sizes_of
from packhouse.release.manifest import NEEDS, Counts, Rows, Selection, Values
from packhouse.release.store_layout import policy_key
from packhouse.spec.model import Format, parse
from packhouse.spec.types import PRODUCTION
from tasks._support.states import Judged, Measured
from tasks.commit import commit, promote
from tasks.cuda.cuda_batch import Cuda
from tasks.export import export
from tasks.fetch import fetch
from tasks.images.canary import unserved
from tasks.judge import judge
from tasks.pack import pack
from tasks.plan import plan
from tasks.publish import publish
from tasks.quantise import quantise
from tasks.reference_outputs import reference_outputs
from tasks.report import report
from tasks.validate_weights import validate_weights

OFF = {"torchscript": "off", "torchscript-int8": "off", "program": "optional"}


@pytest.fixture
def line(home, staged):
    """From the source to the pack, as plain functions. No clock: INT8 stays."""
    planned = plan.fn(staged("linear", formats=OFF, ranges={"batch": (2, 40)}))
    gated = validate_weights.fn(fetch.fn(planned))
    referenced = reference_outputs.fn(gated)
    made = {format: export(gated, format) for format in (Format.ONNX, Format.PROGRAM)}
    judged = [judge(gated, referenced, candidate) for candidate in made.values()]
    judged.append(judge(gated, referenced, quantise(gated, Format.ONNX_INT8, judged[0])))
    assert all(isinstance(each, Judged) for each in judged), judged
    return gated, referenced, judged, pack(gated, referenced, judged, [])


def test_the_manifest_says_of_each_format_how_it_was_made_and_what_opens_it(line):
    gated, referenced, judged, packed = line
    manifest = packed.manifest
    assert (manifest.schema_version, manifest.needs, manifest.extensions) == (2, NEEDS, {})
    by_name = {made.name: made for made in manifest.formats}
    onnx, program, int8 = by_name["onnx"], by_name["program"], by_name["onnx-int8"]
    assert (onnx.files, program.files, int8.files) == (("model.onnx",), ("model.pt2",), ("model.int8.onnx",))
    assert (onnx.way, program.way, int8.way) == ("dynamo", "export", "quantised")
    assert onnx.runtime.name == int8.runtime.name == "onnxruntime"
    facts = {each.candidate.format: each.candidate.facts for each in judged}
    for each in (onnx, int8):
        assert each.onnx
        assert each.onnx.model_dump() == facts[each.format]["onnx"]
    assert onnx.runtime.facts.keys() == {"opset", "ir"}
    assert (program.runtime.name, program.runtime.oldest, program.runtime.facts) == ("torch", "", {})
    assert int8.recipe
    for made in manifest.formats:
        assert made.computed_in == "float32"
        assert (made.rows, made.selection) == (Rows.UNTESTED, Selection.AUTO)
    assert manifest.values == {"x": Values(range=None, nan=False, inf=False)}
    assert manifest.samples == Counts(
        calibration=len(arrays(gated)["calibration.x"]), evaluation=len(arrays(gated)["evaluation.x"])
    )
    sizes = manifest.sizes.compared["batch"]
    assert sizes == referenced.sizes.compared["batch"]
    assert {2, 3, 40} <= set(sizes), "both ends of the axis"
    assert min(sizes) >= 2
    assert manifest.sizes.by_shape == {}
    assert manifest.sizes.not_tried == ()
    assert packed.sandbox == gated.lockdown


def test_the_record_says_which_protections_held(line):
    gated, referenced, judged, packed = line
    measured = Measured(timings=(), processor="a processor")
    shown = report(gated, referenced, measured, packed, 1.0, cuda=Cuda())
    record = commit(unserved(publish.fn(packed, shown)))
    assert record.schema_version == 2
    assert record.provenance
    assert record.provenance.sandbox == gated.lockdown
    assert gated.lockdown, "the sandbox of a test holds at least its limits"
    assert judged
    promote(record, "latest")
    promote(record, PRODUCTION)


def test_a_run_moves_no_channel_that_margins_guard_and_says_so(line):
    gated, referenced, _, packed = line
    shown = report(gated, referenced, Measured(timings=(), processor=""), packed, 1.0, cuda=Cuda())
    record = commit(unserved(publish.fn(packed, shown)))
    policy = b"schema = 1\n[promotion]\naccuracy_drop = 0.0\n"
    store = worker_context().store
    store.put(policy_key("linear"), policy, digest=digest_bytes(policy))
    with pytest.raises(Refused, match=r"^linear@production: is guarded by margins"):
        promote(record, PRODUCTION)
    assert store.stat("linear/channels/production.json") is None
    assert promote(record, "latest").serial == 1


def arrays(gated):
    return read_samples(worker_context().cache.path(gated.samples))


SPEC = """
schema = 1
[model]
name = "m"
[architecture]
name = "a"
[axes.batch]
min = 2
max = 64
[axes.time]
max = 9
[[inputs]]
name = "x"
shape = ["batch", "time", 3]
[[outputs]]
name = "y"
shape = ["batch", "found"]
[weights]
file = "w.safetensors"
sha256 = "{0}"
size = 1
[samples]
file = "s.safetensors"
sha256 = "{0}"
size = 1
""".format("a" * 64)


def test_sizes_are_those_of_the_arrays_and_what_lies_outside_of_them_is_named():
    spec = parse(SPEC.encode())
    asked = [{"x": np.zeros((2, 5, 3))}, {"x": np.zeros((30, 5, 3))}, {"x": np.zeros((2, 9, 3))}, {}]
    compared = sizes_of(spec.inputs, asked)
    assert compared == {"batch": [2, 30], "time": [5, 9]}
    assert sizes_of(spec.outputs, [{"y": np.zeros((2, 7))}]) == {"batch": [2], "found": [7]}
    assert not_tried(spec, compared) == ["batch: above 30", "time: below 5"]
    assert not_tried(spec, {"batch": [2, 64]}) == ["time: no size"]
    assert not_tried(spec, {"batch": [2, 64], "time": [1, 9]}) == []
