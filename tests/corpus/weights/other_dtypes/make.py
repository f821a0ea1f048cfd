import torch

from tests.corpus.weights.wrong import as_safetensors, as_torch

TYPES = (torch.float16, torch.bfloat16, torch.float64, torch.complex64, torch.float8_e4m3fn, torch.float8_e5m2)


def _tensor(dtype: torch.dtype) -> torch.Tensor:
    return torch.tensor([1.0, float("nan")]).to(dtype)


EXPECTED = {
    str(dtype).removeprefix("torch."): {"dtype": str(dtype).removeprefix("torch."), "shape": [2]} for dtype in TYPES
}
GOOD = {str(dtype).removeprefix("torch."): torch.ones(2).to(dtype) for dtype in TYPES}
VARIANTS = {name: as_safetensors(GOOD | {name: _tensor(getattr(torch, name))}) for name in GOOD}
VARIANTS |= {f"{name} by torch.save": as_torch(GOOD | {name: _tensor(getattr(torch, name))}) for name in GOOD}
