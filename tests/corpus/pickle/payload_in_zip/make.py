from pathlib import Path

import torch

from tests.corpus.builders import Payload, healthy


def _variant(key: str):
    def make(folder: Path) -> Path:
        torch.save({**healthy(), key: Payload(folder)}, folder / "weights.pt")
        return folder / "weights.pt"

    return make


VARIANTS = {"first": _variant("0.weight"), "last": _variant("zz")}
