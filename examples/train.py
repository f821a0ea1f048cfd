"""Trains four small models, three of them on data that comes with scikit-learn, and stages each:
`python examples/train.py FOLDER`.

Each `train_*` function is a whole training script in small; note its last statement, which hands the model over.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from packhouse_examples.architectures import DigitsCNN, DigitsLSTM, Tabular
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from torch import nn

import packhouse
from packhouse.training.preprocessing import Concatenate, from_sklearn


def train_tabular(to: str) -> packhouse.Staged:
    """Breast cancer table: 30 columns of very different size, so the scaler matters."""
    table = load_breast_cancer()
    train_x, test_x, train_y, test_y = train_test_split(
        table.data.astype(np.float32), table.target, test_size=0.4, random_state=0, stratify=table.target
    )
    scaler = StandardScaler().fit(train_x)
    model = fit(Tabular(30, 2), scaler.transform(train_x).astype(np.float32), train_y, epochs=40)
    return packhouse.stage(
        model,
        to=to,
        name="tumour-table",
        architecture="examples.tabular",
        arguments={"features": 30, "classes": 2},
        inputs={"x": test_x},
        outputs=["logits"],
        labels=test_y,
        preprocessing=packhouse.Standardise("x", scaler.mean_, scaler.scale_, columns=list(table.feature_names)),
    )


def train_churn(to: str) -> packhouse.Staged:
    """Customers with numbers and text, as scikit-learn sees them: the released ONNX takes both as they are."""
    numbers, contract, payment, left = customers(1500)
    scaler = StandardScaler().fit(numbers[:900])
    encoder = OneHotEncoder(handle_unknown="ignore").fit(np.stack([contract, payment], axis=1)[:900])
    steps = (
        *from_sklearn(scaler, "numbers"),
        *from_sklearn(encoder, "contract", "payment"),
        Concatenate(inputs=("numbers", "contract", "payment")),
    )
    hot = encoder.transform(np.stack([contract, payment], axis=1)).toarray()
    x = np.concatenate([scaler.transform(numbers), hot], axis=1).astype(np.float32)
    model = fit(Tabular(x.shape[1], 2), x[:900], left[:900], epochs=20)
    return packhouse.stage(
        model,
        to=to,
        name="churn",
        architecture="examples.tabular",
        arguments={"features": x.shape[1], "classes": 2},
        inputs={"numbers": numbers[900:], "contract": contract[900:], "payment": payment[900:]},
        outputs=["logits"],
        labels=left[900:],
        preprocessing=steps,
    )


def train_cnn(to: str) -> packhouse.Staged:
    """Handwritten digits as images."""
    train_x, test_x, train_y, test_y = digits()
    model = fit(DigitsCNN(), train_x[:, None], train_y, epochs=12)
    return packhouse.stage(
        model,
        to=to,
        name="digits-cnn",
        architecture="examples.digits-cnn",
        inputs={"image": test_x[:, None]},
        outputs=["logits"],
        labels=test_y,
    )


def train_lstm(to: str) -> packhouse.Staged:
    """Handwritten digits read row by row: the number of rows is a dynamic axis."""
    train_x, test_x, train_y, test_y = digits()
    model = fit(DigitsLSTM(), train_x, train_y, epochs=25)
    return packhouse.stage(
        model,
        to=to,
        name="digits-lstm",
        architecture="examples.digits-lstm",
        inputs={"rows": test_x},
        axes={"rows": ["batch", "time", 8]},
        ranges={"time": (1, 16)},
        outputs=["logits"],
        labels=test_y,
    )


def customers(count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Invented: age, months and spend, float32, (n, 3); contract and payment, text, (n,); who left, 0 or 1."""
    draw = np.random.default_rng(0)
    numbers = np.stack([draw.normal(45, 14, count), draw.exponential(30, count), draw.gamma(4, 250, count)], axis=1)
    contract = draw.choice(["month", "year", "two years"], count, p=[0.5, 0.3, 0.2])
    payment = draw.choice(["card", "cheque", "debit", "transfer"], count)
    risk = 1.6 * (contract == "month") + (payment == "cheque") - numbers[:, 1] / 30 + (numbers[:, 2] - 1000) / 800
    return numbers.astype(np.float32), contract, payment, (risk + draw.logistic(0, 0.3, count) > 0.5).astype(np.int64)


TRAININGS: dict[str, Callable[[str], packhouse.Staged]] = {
    "tumour-table": train_tabular,
    "churn": train_churn,
    "digits-cnn": train_cnn,
    "digits-lstm": train_lstm,
}


def digits() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Images, float32, (n, 8, 8), 0 to 1, and classes: 60 % to train, 40 % held out."""
    data = load_digits()
    images = (data.images / 16).astype(np.float32)
    parts = train_test_split(images, data.target, test_size=0.4, random_state=0, stratify=data.target)
    return parts[0], parts[1], parts[2], parts[3]


def fit(model: nn.Module, x: np.ndarray, y: np.ndarray, *, epochs: int) -> nn.Module:
    """Plain Adam on cross entropy, seeded."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    for layer in model.modules():
        if hasattr(layer, "reset_parameters"):
            layer.reset_parameters()
    features, classes = torch.from_numpy(np.ascontiguousarray(x)), torch.from_numpy(y)
    optimiser, loss = torch.optim.Adam(model.parameters(), lr=2e-3), nn.CrossEntropyLoss()
    model.train()
    for _ in range(epochs):
        for rows in torch.randperm(len(features)).split(64):
            optimiser.zero_grad()
            loss(model(features[rows]), classes[rows]).backward()
            optimiser.step()
    return model.eval()


def main() -> None:
    root = Path(sys.argv[1] if len(sys.argv) > 1 else "sources").resolve()
    for name, train in TRAININGS.items():
        print(train(str(root / name)).url)


if __name__ == "__main__":
    main()
