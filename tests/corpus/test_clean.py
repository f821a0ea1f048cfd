"""Healthy weights are never refused, and come out as the same bytes in whatever container they came."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

from packhouse.weights.safetensors_codec import read_header
from packhouse.weights.safetensors_torch import read_torch, write_torch
from tasks.jobs.validate_weights import check
from tests.corpus.builders import expected

Tensors = dict[str, torch.Tensor]
ROOT = Path(__file__).parents[2]


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Embedding(11, 4)
        self.decoder = nn.Linear(4, 11, bias=False)
        self.decoder.weight = self.encoder.weight


def _models() -> dict[str, nn.Module]:
    block = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    return {
        "MLP": nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)),
        "conv and batch norm": nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ConvTranspose2d(4, 2, 2)),
        "LSTM": nn.LSTM(4, 6, num_layers=2, bidirectional=True),
        "GRU": nn.GRU(4, 6),
        "transformer": nn.TransformerEncoder(block, 2),
        "attention": nn.MultiheadAttention(8, 2),
        "embedding bag": nn.EmbeddingBag(9, 4),
        "layer norm": nn.Sequential(nn.LayerNorm((3, 4)), nn.GroupNorm(2, 4)),
        "instance norm": nn.InstanceNorm1d(4, track_running_stats=True, affine=True),
        "weight norm": nn.utils.parametrizations.weight_norm(nn.Linear(3, 3)),
        "bfloat16": nn.Linear(3, 3).bfloat16(),
        "half": nn.Linear(3, 3).half(),
        "double": nn.Linear(3, 3).double(),
        "channels last": nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last),
        "bilinear": nn.Bilinear(2, 3, 4),
        "PReLU": nn.PReLU(),
    }


def _odd() -> dict[str, Tensors]:
    base = torch.arange(24.0)
    return {
        "int8 buffers": {"w_q": torch.ones(4, 4, dtype=torch.int8), "scale": torch.ones(4)},
        "scalar": {"temperature": torch.tensor(0.07), "step": torch.tensor(3)},
        "empty tensor": {"a": torch.empty(0), "b": torch.empty(0, 5), "c": torch.ones(2)},
        "every dtype": {str(d): torch.ones(3).to(d) for d in (torch.bool, torch.uint8, torch.int16, torch.int32,
                        torch.uint16, torch.uint32, torch.uint64, torch.complex64, torch.float8_e4m3fn)},
        "views of one storage": {"low": base[:12], "high": base[12:], "grid": base.view(4, 6).T},
        "slice": {"a": torch.arange(1000.0)[10:20]},
        "many tensors": {f"layers.{i}.weight": torch.full((2,), float(i)) for i in range(600)},
        "unicode and dotted names": {"größe.weight": torch.ones(1), "a.b.c.d.e.f": torch.ones(1), "a/b": torch.ones(1)},
        "extreme numbers": {"a": torch.tensor([1e-45, -0.0, 3.4e38, 1e-38])},
        "zero variance": {"bn.running_var": torch.zeros(3)},
        "looks like a pickle": {"w": torch.tensor(list(b"PK\x05\x06cos\nsystem\n(S'x'\ntR." * 4), dtype=torch.uint8)},
        "large": {"w": torch.randn(1100, 1100)},
    }  # fmt: skip


torch.manual_seed(0)
CLEAN: dict[str, Tensors] = {name: model.state_dict() for name, model in _models().items()} | _odd()


def _saved_every_way(tensors: Tensors, folder: Path) -> list[Path]:
    """safetensors by its own writer and by ours; torch.save of a dict, of parameters, and of a checkpoint."""
    paths = [
        folder / name for name in ("a.safetensors", "b.safetensors", "a.pt", "b.pth", "c.bin", "d.pt", "e.pt", "f.pt")
    ]
    alone = {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()}
    safetensors.torch.save_file(alone, paths[0], {"format": "pt"})
    write_torch(paths[1], tensors)
    torch.save(tensors, paths[2])
    torch.save(dict(tensors), paths[3])
    torch.save(alone, paths[4])
    torch.save({"epoch": 3, "state_dict": tensors, "loss": 0.25, "lrs": [0.1, None, True]}, paths[5])
    torch.save({name: nn.Parameter(t, requires_grad=False) for name, t in alone.items()}, paths[6])
    optimizer = torch.optim.Adam([nn.Parameter(torch.ones(2))])
    torch.save({"model": tensors, "optimizer": optimizer.state_dict(), "size": torch.Size([1, 2])}, paths[7])
    return paths


@pytest.mark.parametrize("name", CLEAN)
def test_healthy_weights_pass_in_every_container_and_come_out_as_the_same_bytes(name: str, tmp_path: Path) -> None:
    tensors = CLEAN[name]
    contents = set()
    for path in _saved_every_way(tensors, tmp_path):
        done = check(weights=str(path), expected=expected(tensors), aliases={}, out=str(tmp_path / "out"))
        assert done["tensors"] == len(tensors)
        assert done["parameters"] == sum(tensor.numel() for tensor in tensors.values())
        assert done["bytes"] == (tmp_path / "out").stat().st_size
        assert bool(done["notes"]) == (path.name in ("d.pt", "f.pt"))
        contents.add((tmp_path / "out").read_bytes())
    assert len(contents) == 1
    found = read_torch(tmp_path / "out")
    assert all(torch.equal(found[key].view(torch.uint8) if t.dim() else found[key], t.contiguous().view(torch.uint8)
               if t.dim() else t) for key, t in tensors.items())  # fmt: skip


def test_tied_weights_pass_with_either_name_or_both_and_come_out_once(tmp_path: Path) -> None:
    model = Tied()
    wanted, aliases = expected(model.state_dict()), {"decoder.weight": "encoder.weight"}
    one = model.encoder.weight.detach()
    torch.save(model.state_dict(), tmp_path / "both.pt")
    torch.save({"decoder.weight": one}, tmp_path / "alias.pt")
    safetensors.torch.save_file({"encoder.weight": one}, tmp_path / "target.safetensors")
    safetensors.torch.save_model(model, str(tmp_path / "model.safetensors"))
    safetensors.torch.save_file({"encoder.weight": one, "decoder.weight": one.clone()}, tmp_path / "copies.safetensors")
    contents = set()
    for path in sorted([*tmp_path.glob("*.pt"), *tmp_path.glob("*.safetensors")]):
        done = check(weights=str(path), expected=wanted, aliases=aliases, out=str(tmp_path / "out"))
        assert done["aliases"] == aliases
        contents.add((tmp_path / "out").read_bytes())
    assert len(contents) == 1
    header = read_header(tmp_path / "out")
    assert header.metadata == aliases
    assert list(header.tensors) == ["encoder.weight"]


@pytest.mark.parametrize("reuse", [False, True])
def test_a_canonical_file_is_written_again_only_on_demand_and_to_the_same_bytes(tmp_path: Path, reuse: bool) -> None:
    source, out = tmp_path / "w.safetensors", tmp_path / "out"
    write_torch(source, CLEAN["MLP"])
    checked = check(weights=str(source), expected=expected(CLEAN["MLP"]), aliases={}, out=str(out), reuse=reuse)
    assert checked["canonical"]
    assert out.exists() is not reuse
    assert reuse or out.read_bytes() == source.read_bytes()


MEASURE = """
import sys, json, threading
from tasks.jobs.validate_weights import check
def private():
    return next(int(l.split()[1]) for l in open("/proc/self/status") if l.startswith("RssAnon")) // 1024
peak = before = private()
def watch():
    global peak
    while not done.wait(0.002):
        peak = max(peak, private())
done = threading.Event()
watcher = threading.Thread(target=watch)
watcher.start()
check(weights=sys.argv[1], expected=json.loads(sys.argv[2]), aliases={}, out=sys.argv[1] + ".out")
done.set()
watcher.join()
print(peak - before)
"""


@pytest.mark.parametrize("name", ["w.pt", "w.safetensors"])
def test_the_gate_needs_little_private_memory(name: str, tmp_path: Path) -> None:
    tensors = {f"w{i}": torch.zeros(5_000_000) for i in range(10)}  # 200 MB
    (safetensors.torch.save_file if name.endswith("s") else torch.save)(tensors, tmp_path / name)
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(tmp_path / name), json.dumps(expected(tensors))],
        check=True, cwd=ROOT, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert int(done.stdout) < 64, f"{done.stdout} MiB"
