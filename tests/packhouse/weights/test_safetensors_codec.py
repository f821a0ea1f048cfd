"""The codec's promises: what it writes is canonical, what it takes the crate takes too, and nothing is copied."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from packhouse.errors import UnsafeWeights, WeightsInvalid
from packhouse.weights.safetensors_codec import (
    ITEM_BYTES,
    Raw,
    TensorLimits,
    canonical_header,
    name_problem,
    read_header,
    read_numpy,
    write,
    write_numpy,
)
from packhouse.weights.safetensors_torch import DTYPES, read_torch, write_torch

ROOT = Path(__file__).parents[3]
same_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=200)

names = st.text(min_size=1, max_size=30).filter(lambda name: not name_problem(name))
texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=20)


@st.composite
def raws(draw: st.DrawFn) -> Raw:
    dtype = draw(st.sampled_from(sorted(ITEM_BYTES)))
    shape = tuple(draw(st.lists(st.integers(0, 4), max_size=4)))
    size = ITEM_BYTES[dtype]
    for dimension in shape:
        size *= dimension
    return Raw(dtype, shape, draw(st.binary(min_size=size, max_size=size)))


def _distinct(tensors: dict[str, Raw]) -> bool:
    import unicodedata

    return len({unicodedata.normalize("NFC", name) for name in tensors}) == len(tensors)


files = st.dictionaries(names, raws(), max_size=6).filter(_distinct)


@given(tensors=files, metadata=st.dictionaries(texts, texts, max_size=3))
@same_folder
def test_what_is_written_is_read_back_by_us_and_by_the_crate(
    tmp_path: Path, tensors: dict[str, Raw], metadata: dict[str, str]
) -> None:
    path = tmp_path / "x.safetensors"
    write(path, tensors, metadata)

    header, content = read_header(path), path.read_bytes()
    assert header.metadata == metadata
    assert content.startswith(canonical_header(header))
    assert header.data_start % 8 == 0
    for name, raw in tensors.items():
        info = header.tensors[name]
        assert (info.dtype, info.shape) == (raw.dtype, raw.shape)
        assert content[header.data_start + info.begin : header.data_start + info.end] == raw.data
        assert (header.data_start + info.begin) % ITEM_BYTES[raw.dtype] == 0
    assert _crate(content) == {name: (raw.dtype, list(raw.shape), raw.data) for name, raw in tensors.items()}


@given(tensors=files, order=st.randoms())
@same_folder
def test_equal_tensors_give_equal_bytes_in_any_order(tmp_path: Path, tensors: dict[str, Raw], order: object) -> None:
    shuffled = list(tensors.items())
    order.shuffle(shuffled)  # type: ignore[attr-defined]
    write(tmp_path / "a", tensors, {"a": "1", "b": "2"})
    write(tmp_path / "b", dict(shuffled), {"b": "2", "a": "1"})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_equal_tensors_give_equal_bytes_in_fresh_processes(tmp_path: Path) -> None:
    program = (
        "import sys, pathlib, numpy as np; from packhouse.weights.safetensors_codec import write_numpy\n"
        "names = list({f'layer.{i}.weight' for i in range(40)} | {'é', 'b', 'a'})\n"
        "arrays = {n: np.full((3, len(n)), len(n), ('f4', 'i1', 'f8')[len(n) % 3]) for n in names}\n"
        "write_numpy(pathlib.Path(sys.argv[1]), arrays, {n: n for n in names[:5] if 0} | {'z': '1', 'a': '2'})"
    )
    contents = set()
    for seed in ("0", "1", "4242"):
        path = tmp_path / seed
        subprocess.run(
            [sys.executable, "-c", program, str(path)], check=True, cwd=ROOT, env=os.environ | {"PYTHONHASHSEED": seed}
        )
        contents.add(path.read_bytes())
    assert len(contents) == 1


def _crate(content: bytes) -> dict[str, tuple[str, list[int], bytes]]:
    found = safetensors.deserialize(content)
    return {name: (view["dtype"], view["shape"], bytes(view["data"])) for name, view in found}


def _accept_alike(path: Path, content: bytes) -> bool:
    """Whether we take the file; and if so, that the crate reads the same tensors."""
    path.unlink(missing_ok=True)
    path.write_bytes(content)
    try:
        header = read_header(path)
    except UnsafeWeights:
        return False
    theirs = _crate(content)
    ours = {
        name: (info.dtype, list(info.shape), content[header.data_start + info.begin : header.data_start + info.end])
        for name, info in header.tensors.items()
    }
    assert ours == theirs
    return True


def _kibibyte() -> bytes:
    """A file whose header is a little over 1 KiB."""
    arrays = {f"encoder.layer.{i}.weight": torch.arange(6.0).reshape(2, 3) + i for i in range(13)}
    return safetensors.torch.save(arrays, {"format": "pt"})


def test_every_single_bit_flip_of_the_header_is_refused_or_read_as_the_crate_reads_it(tmp_path: Path) -> None:
    content = _kibibyte()
    length = 8 + int.from_bytes(content[:8], "little")
    assert length > 1024
    assert _accept_alike(tmp_path / "x", content)
    taken = 0
    for bit in range(8 * 1024):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        taken += _accept_alike(tmp_path / "x", bytes(flipped))
    # Most flips of a name give another good name; the digest is what catches those.
    assert 0 < taken < 8 * 1024


FRAGMENTS = [
    *(b'"', b"{", b"}", b"[", b"]", b",", b":", b" ", b"\n", b"\xff", b"\0", b"\\u0061"),
    *(b"0", b"-", b"-0", b"1e1", b"null", b"18446744073709551616"),
    *(b'"__metadata__":{}', b'"__metadata__":{"a":"b"}', b'"F32"', b'"shape":[]'),
]
Edits = list[tuple[int, int, bytes]]
edits_of_a_header = st.lists(
    st.tuples(st.integers(0, 1100), st.integers(0, 12), st.sampled_from(FRAGMENTS)), min_size=1, max_size=3
)


@pytest.mark.slow
@given(edits=edits_of_a_header)
@settings(deadline=None, max_examples=1500, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_we_take_of_mutated_headers_the_crate_takes_alike(tmp_path: Path, edits: Edits) -> None:
    content = _kibibyte()
    length = int.from_bytes(content[:8], "little")
    header, data = content[8 : 8 + length], content[8 + length :]
    for at, cut, fragment in edits:
        header = header[:at] + fragment + header[at + cut :]
    _accept_alike(tmp_path / "x", len(header).to_bytes(8, "little") + header + data)


def test_numpy_arrays_come_back_read_only_in_any_layout_and_byte_order(tmp_path: Path) -> None:
    arrays = {
        "fortran": np.asfortranarray(np.arange(12.0).reshape(3, 4)),
        "big-endian": np.arange(5, dtype=">i4"),
        "strided": np.arange(20, dtype=np.int16)[::3],
        "scalar": np.array(1.5, np.float32),
        "empty": np.empty((0, 3), np.int64),
        "bool": np.array([True, False]),
        "complex": np.array([1 + 2j], np.complex64),
    }
    write_numpy(tmp_path / "x", arrays)
    found = read_numpy(tmp_path / "x")
    assert list(found) == sorted(arrays)
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype.newbyteorder("<")
        assert found[name].shape == array.shape
        assert (found[name] == array).all()
        assert not found[name].flags.writeable


def test_numpy_says_so_where_it_has_no_such_dtype(tmp_path: Path) -> None:
    write_torch(tmp_path / "x", {"a": torch.ones(2, dtype=torch.bfloat16)})
    with pytest.raises(WeightsInvalid, match="numpy has no such dtype; got BF16"):
        read_numpy(tmp_path / "x")
    with pytest.raises(WeightsInvalid, match="no such dtype in safetensors"):
        write_numpy(tmp_path / "x", {"a": np.array(["text"])})


def test_torch_tensors_of_every_dtype_and_layout_come_back(tmp_path: Path) -> None:
    tensors = {name: torch.tensor([1, 0, 1]).to(dtype) for name, dtype in DTYPES.items()}
    tensors |= {"transposed": torch.randn(3, 4).T, "scalar": torch.tensor(2.5), "empty": torch.empty(0, 3)}
    tensors |= {"conjugate": torch.tensor([1 + 2j]).conj(), "expanded": torch.ones(1).expand(4, 3)}
    tensors |= {"parameter": torch.nn.Parameter(torch.ones(2))}
    write_torch(tmp_path / "x", tensors)
    found, theirs = read_torch(tmp_path / "x"), safetensors.torch.load_file(tmp_path / "x")
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].dtype is theirs[name].dtype is tensor.dtype
        assert found[name].shape == tensor.shape
        assert found[name].tolist() == theirs[name].tolist() == tensor.tolist()


@pytest.mark.parametrize("tensor", [torch.ones(2, 2).to_sparse(), torch.ones(2, device="meta")], ids=["sparse", "meta"])
def test_what_is_not_a_plain_tensor_is_not_written(tmp_path: Path, tensor: torch.Tensor) -> None:
    with pytest.raises(WeightsInvalid, match="not a plain tensor"):
        write_torch(tmp_path / "x", {"a": tensor})


def test_files_whose_items_lie_askew_are_read(tmp_path: Path) -> None:
    """Another writer's order: one bool first, so that every float behind it is unaligned."""
    header = b'{"a":{"dtype":"BOOL","shape":[1],"data_offsets":[0,1]},'
    header += b'"b":{"dtype":"F32","shape":[2],"data_offsets":[1,9]}}'
    content = len(header).to_bytes(8, "little") + header + b"\x01" + torch.tensor([1.5, 2.5]).numpy().tobytes()
    (tmp_path / "x").write_bytes(content)
    assert read_torch(tmp_path / "x")["b"].tolist() == read_numpy(tmp_path / "x")["b"].tolist() == [1.5, 2.5]


def test_changing_a_tensor_never_changes_its_file(tmp_path: Path) -> None:
    write_torch(tmp_path / "x", {"a": torch.zeros(1000)})
    before = (tmp_path / "x").read_bytes()
    read_torch(tmp_path / "x")["a"].add_(1)
    assert (tmp_path / "x").read_bytes() == before


def test_writing_over_a_file_that_is_mapped_leaves_its_readers_alone(tmp_path: Path) -> None:
    write_torch(tmp_path / "x", {"a": torch.ones(100_000)})
    held = read_torch(tmp_path / "x")
    write_torch(tmp_path / "x", {"a": held["a"] * 2})
    assert held["a"].sum() == 100_000
    assert read_torch(tmp_path / "x")["a"].sum() == 200_000


@pytest.mark.parametrize("name", ["", "a\nb", "../x", "\u202e", "__metadata__", "x" * 2000])
def test_names_that_could_not_be_read_are_not_written(tmp_path: Path, name: str) -> None:
    with pytest.raises(WeightsInvalid, match="name of a tensor"):
        write(tmp_path / "x", {name: Raw("U8", (1,), b"\0")})
    assert not (tmp_path / "x").exists()


def test_limits_are_kept(tmp_path: Path) -> None:
    write(tmp_path / "x", {f"t{i}": Raw("U8", (1,), b"\0") for i in range(11)}, {"a": "b" * 100})
    read_header(tmp_path / "x")
    for limits in ({"max_tensors": 10}, {"max_metadata_bytes": 100}, {"max_header_bytes": 99}):
        with pytest.raises(UnsafeWeights, match=r"too many|too large"):
            read_header(tmp_path / "x", limits=TensorLimits(**limits))


MEASURE = """
import sys, pathlib
from packhouse.weights.safetensors_torch import read_torch, write_torch
def anonymous():
    return next(int(l.split()[1]) for l in open("/proc/self/status") if l.startswith("RssAnon")) // 1024
before = anonymous()
tensors = read_torch(pathlib.Path(sys.argv[1]))
total = sum(float(t.sum()) for t in tensors.values())
read = anonymous() - before
write_torch(pathlib.Path(sys.argv[1] + ".again"), tensors)
print(read, anonymous() - before)
"""


@pytest.mark.slow
def test_a_large_file_costs_no_private_memory_to_read_or_to_write_again(tmp_path: Path) -> None:
    path = tmp_path / "x"
    write_torch(path, {f"w{i}": torch.zeros(5_000_000) for i in range(10)})  # 200 MB
    measured = subprocess.run(
        [sys.executable, "-c", MEASURE, str(path)], check=True, cwd=ROOT, capture_output=True, text=True
    )
    read, written = map(int, measured.stdout.split())
    assert read < 24, f"{read} MiB"
    assert written < 24, f"{written} MiB"
    assert path.read_bytes() == Path(f"{path}.again").read_bytes()


def test_the_codec_alone_needs_no_torch() -> None:
    program = "import sys, packhouse.weights.safetensors_codec; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT).returncode == 0
