"""A table with text: customers, as scikit-learn sees them."""

from __future__ import annotations

import numpy as np
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from packhouse.training.preprocessing import Concatenate, Standard, from_sklearn

DRAW = np.random.default_rng(0)
NUMBERS = DRAW.normal([45, 30, 1e3], [14, 9, 250], (80, 3)).astype(np.float32)
PLANS = DRAW.choice(["month", "year", "two years"], 80)
ZONES = DRAW.choice([f"zone {number}" for number in range(10)], 80)


def churn(staged, name: str, **options: object) -> str:
    """The source's URL. Options go to stage()."""
    scaler, encoder = StandardScaler().fit(NUMBERS), OneHotEncoder(handle_unknown="ignore")
    encoder.fit(np.stack([PLANS, ZONES], axis=1))
    columns = ("age", "months", "spend")
    scale = Standard(input="numbers", columns=columns, mean=tuple(scaler.mean_), scale=tuple(scaler.scale_))
    steps = (scale, *from_sklearn(encoder, "plan", "zone"), Concatenate(inputs=("numbers", "plan", "zone")))
    inputs = {"numbers": NUMBERS, "plan": PLANS, "zone": ZONES}
    return staged("linear", name, inputs=inputs, preprocessing=steps, **options)
