"""What every tool is given alike: a folder with the kind of model, its weights and its samples."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import packhouse_peers
import torch
from torch import nn

from bench.peers.text_folder import save_causal, save_classifier

DIGITS = ("mlp", "cnn", "lstm", "transformer", "branch")
BERT, CAUSAL = "bert", "causal"
UNTRAINED = ("counts", "noise")
OUTPUT = "logits"
EPOCHS, TRAINED_ON = 15, 900
EVERY, CALIBRATE_ON = 4, 64


@dataclass(frozen=True)
class Given:
    folder: Path

    @property
    def kind(self) -> str:
        return (self.folder / "kind").read_text()

    @property
    def text(self) -> Path:
        """A folder as the transformers library saves it; only `bert` and `causal` have one."""
        return self.folder / "text"

    def module(self) -> nn.Module:
        module = packhouse_peers.build(self.kind).eval()
        module.load_state_dict(torch.load(self.folder / "weights.pt", weights_only=True))
        return module.requires_grad_(False)

    def samples(self) -> dict[str, np.ndarray]:
        """Input -> rows that the model has not been trained on, in the order of its arguments."""
        with np.load(self.folder / "samples.npz") as held:
            return {name: held[name] for name in held.files if name != "labels"}

    def labels(self) -> np.ndarray | None:
        with np.load(self.folder / "samples.npz") as held:
            return held["labels"] if "labels" in held.files else None

    def calibration(self) -> list[dict[str, np.ndarray]]:
        """Batches of one row, of those that packhouse calibrates on too: every fourth."""
        rows = {name: values[::EVERY][:CALIBRATE_ON] for name, values in self.samples().items()}
        return [{name: values[place : place + 1] for name, values in rows.items()} for place in range(CALIBRATE_ON)]

    def held_out(self) -> tuple[dict[str, np.ndarray], np.ndarray | None]:
        """The rows, and their labels, that nobody calibrates on."""
        samples, labels = self.samples(), self.labels()
        kept = np.arange(len(next(iter(samples.values())))) % EVERY != 0
        return {name: rows[kept] for name, rows in samples.items()}, None if labels is None else labels[kept]


def make(kind: str, folder: Path) -> Given:
    folder.mkdir(parents=True)
    (folder / "kind").write_text(kind)
    torch.manual_seed(0)
    if kind == CAUSAL:
        save_causal(folder / "text", packhouse_peers.WORDS)
        return Given(folder)
    module = packhouse_peers.build(kind)
    if kind == BERT:
        random = np.random.default_rng(0)
        ids, mask = random.integers(1, packhouse_peers.WORDS, (400, 16)), np.ones((400, 16), np.int64)
        mask[1::2, 12:] = 0
        np.savez(folder / "samples.npz", input_ids=ids, attention_mask=mask)
        save_classifier(module, folder / "text")
    else:
        images, labels = _digits()
        if kind in DIGITS:
            _train(module, images[:TRAINED_ON], labels[:TRAINED_ON])
        np.savez(folder / "samples.npz", x=images[TRAINED_ON:], labels=labels[TRAINED_ON:])
    torch.save(module.eval().state_dict(), folder / "weights.pt")
    return Given(folder)


def _digits() -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import load_digits

    data = load_digits()
    order = np.random.default_rng(0).permutation(len(data.target))
    return (data.images[order] / 16).astype(np.float32), data.target[order].astype(np.int64)


def _train(module: nn.Module, images: np.ndarray, labels: np.ndarray) -> None:
    features, classes = torch.from_numpy(images), torch.from_numpy(labels)
    optimiser = torch.optim.Adam(module.parameters(), 1e-3)
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(features)).split(64):  # type: ignore[no-untyped-call]
            optimiser.zero_grad()
            nn.functional.cross_entropy(module(features[rows]), classes[rows]).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
