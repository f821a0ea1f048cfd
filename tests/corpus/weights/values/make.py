import torch

from tests.corpus.builders import expected
from tests.corpus.weights.wrong import INF, NAN, as_safetensors, as_torch

FAR = torch.zeros(3_000_000)
FAR[2_999_999] = NAN
VIEW = torch.zeros(4, 6)
VIEW[1, 5] = INF
EXPECTED = expected({"w": FAR}) | {"v": {"dtype": "float32", "shape": [6, 4]}}
GOOD = {"w": torch.zeros(3_000_000), "v": torch.zeros(6, 4)}
VARIANTS = {
    "last of three million": as_safetensors(GOOD | {"w": FAR}),
    "transposed view": as_torch(GOOD | {"v": VIEW.T}),
}
