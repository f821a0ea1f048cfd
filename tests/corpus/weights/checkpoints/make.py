import torch

from tests.corpus.builders import files, healthy, saved

H = healthy()
VARIANTS = files(
    "checkpoint.pt",
    {
        "EMA twin": saved({"model": H, "model_ema": H, "epoch": 3}),
        "two state dicts": saved({"model": H, "state_dict": H}),
        "strange key": saved({"generator": H, "epoch": 3}),
        "no state dict": saved({"epoch": 3, "loss": 0.5}),
        "empty dict": saved({}),
        "list of tensors": saved([torch.ones(2)]),
        "a tensor": saved(torch.ones(2)),
        "a number": saved(3),
        "numbers as keys": saved({0: torch.ones(2)}),
        "nested twice": saved({"model": {"net": H}}),
        "tensor beside a number": saved({"0.weight": H["0.weight"], "epoch": 3}),
    },
)
