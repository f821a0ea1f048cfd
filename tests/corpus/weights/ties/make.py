import torch

from tests.corpus.builders import expected
from tests.corpus.weights.wrong import as_safetensors, as_torch

EXPECTED = expected({"encoder.weight": torch.ones(5, 3), "decoder.weight": torch.ones(5, 3)})
ALIASES = {"decoder.weight": "encoder.weight"}
BROKEN = {"encoder.weight": torch.ones(5, 3), "decoder.weight": torch.ones(5, 3)}
BROKEN["decoder.weight"][4, 2] = 1.0000001
VARIANTS = {
    "safetensors": as_safetensors(BROKEN),
    "torch": as_torch(BROKEN),
    "minus zero": as_torch({"encoder.weight": torch.zeros(5, 3), "decoder.weight": -torch.zeros(5, 3)}),
    "neither": as_safetensors({"x": torch.ones(1)}),
}
