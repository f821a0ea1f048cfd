"""A tiny BERT of the transformers library."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np


def staged_encoder(to: Path, **options: Any) -> str:
    """Stages it with seeded weights: integer inputs, two dynamic axes, a mask. Gives the source's URL.

    Args:
        to: The folder that it becomes.
        options: Go to packhouse.stage().
    """
    import torch
    from packhouse_examples.encoder import encoder

    import packhouse

    config = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    config |= {"vocab_size": 100, "max_position_embeddings": 32}
    torch.manual_seed(0)
    random = np.random.default_rng(0)
    mask = np.ones((12, 8), np.int64)
    mask[1::2, 5:] = 0
    return packhouse.stage(
        encoder(**config),
        to=str(to),
        name="encoder",
        architecture="examples.encoder",
        arguments=config,
        inputs={"input_ids": random.integers(0, 100, (12, 8)), "attention_mask": mask},
        outputs=["hidden"],
        axes={"input_ids": ["batch", "time"], "attention_mask": ["batch", "time"]},
        ranges={"batch": (1, 8), "time": (1, 16)},
        gates={"int8_worth": 0},
        **options,
    ).url
