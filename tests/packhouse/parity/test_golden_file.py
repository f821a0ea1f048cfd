"""Cases in a file: what was written is read back, and what is no file of cases is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from packhouse.digest import digest_file
from packhouse.errors import ReleaseInvalid, UnsafeWeights
from packhouse.parity.golden_file import golden, read_cases, write_cases
from packhouse.parity.judge import Case
from packhouse.weights.safetensors_codec import write_numpy

any_array = st.sampled_from([np.float32, np.float64, np.float16, np.int64, np.bool_]).flatmap(
    lambda dtype: arrays.arrays(dtype, arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3))
)
names = st.text("abc.0_", min_size=1, max_size=6)
named = st.dictionaries(names, any_array, min_size=1, max_size=3)
cases = st.builds(
    Case, name=st.text(max_size=9), inputs=named, expected=named, exact=st.none() | named, real=st.booleans()
)
same_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)


def equal(one: Case, other: Case) -> bool:
    def plain(case: Case) -> list[object]:
        parts = (case.inputs, case.expected, case.exact or {})
        return [
            case.name,
            case.real,
            case.exact is None,
            [[(k, a.dtype, a.shape, a.tobytes()) for k, a in part.items()] for part in parts],
        ]

    return plain(one) == plain(other)


@given(st.lists(cases, min_size=1, max_size=4))
@same_folder
def test_cases_are_read_back_as_they_were_in_their_order(tmp_path, written):
    path = tmp_path / "golden.safetensors"
    write_cases(path, written)
    read = read_cases(path)
    assert len(read) == len(written)
    assert all(equal(one, other) for one, other in zip(read, written, strict=True))


def one(name: str, elements: int = 4) -> Case:
    x = np.arange(elements, dtype=np.float32)
    return Case(name, {"x": x}, {"y": x}, {"y": x.astype(np.float64)}, real=True)


def test_equal_cases_give_equal_bytes(tmp_path):
    for name in ("a", "b"):
        write_cases(tmp_path / name, [one("first"), one("second")])
    assert digest_file(tmp_path / "a") == digest_file(tmp_path / "b")


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"cases": "[]"},
        {"cases": "{}"},
        {"cases": "not json"},
        {"cases": '[{"name": "a"}]'},
        {"cases": '[{"name":"a","real":true,"in":["x"],"out":["gone"],"f64":[]}]'},
        {"cases": "[1]"},
        {"cases": "null"},
    ],
)
def test_a_file_whose_index_is_wrong_is_refused(tmp_path, metadata):
    write_numpy(tmp_path / "golden.safetensors", {"0.in.x": np.zeros(2)}, metadata)
    with pytest.raises(ReleaseInvalid, match=r"golden\.safetensors: (is not a file of cases|holds no cases)"):
        read_cases(tmp_path / "golden.safetensors")


def test_a_file_that_is_cut_short_is_refused(tmp_path):
    path = tmp_path / "golden.safetensors"
    write_cases(path, [one("a")])
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UnsafeWeights):
        read_cases(path)


def test_golden_cases_are_those_that_fit_in_their_order():
    every = [one("a", 10), one("b", 1000), one("c", 10), one("d", 10)]
    # 16 bytes an element: 4 in, 4 out, 8 in float64
    assert [case.name for case in golden(every, limit=16 * 25)] == ["a", "c"]
    assert [case.name for case in golden(every)] == ["a", "b", "c", "d"]


def test_a_release_carries_at_least_its_smallest_case():
    assert [case.name for case in golden([one("a", 1000), one("b", 10)], limit=1)] == ["b"]
