import os
from pathlib import Path

from safetensors.torch import save_file

from tests.corpus.builders import healthy


def _link(folder: Path) -> Path:
    save_file(healthy(), folder / "real")
    (folder / "weights.safetensors").symlink_to(folder / "real")
    return folder / "weights.safetensors"


def _fifo(folder: Path) -> Path:
    os.mkfifo(folder / "weights.safetensors")
    return folder / "weights.safetensors"


def _folder(folder: Path) -> Path:
    (folder / "weights.pt").mkdir()
    return folder / "weights.pt"


def _device(folder: Path) -> Path:
    return Path("/dev/zero")


def _sparse(folder: Path) -> Path:
    path = folder / "weights.safetensors"
    save_file(healthy(), path)
    os.truncate(path, 1 << 40)
    return path


def _gone(folder: Path) -> Path:
    return folder / "weights.safetensors"


VARIANTS = {
    "symlink": _link,
    "FIFO": _fifo,
    "folder": _folder,
    "device": _device,
    "sparse 1 TiB": _sparse,
    "gone": _gone,
}
