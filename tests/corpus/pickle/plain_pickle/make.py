from pathlib import Path

from tests.corpus.builders import Payload, pickled


def _variant(protocol: int, suffix: str):
    def make(folder: Path) -> Path:
        path = folder / f"model{suffix}"
        path.write_bytes(pickled({"weights": Payload(folder)}, protocol))
        return path

    return make


SUFFIXES = (".pt", ".pth", ".bin", ".safetensors", ".pkl", ".ckpt")
VARIANTS = {f"protocol {p} as {suffix}": _variant(p, suffix) for p, suffix in enumerate(SUFFIXES)}
