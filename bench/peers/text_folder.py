"""Models of the transformers library with random weights, as folders: what optimum takes, and what Olive can check."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def save_classifier(module: Any, folder: Path) -> None:
    module.model.save_pretrained(folder)


def save_causal(folder: Path, words: int) -> None:
    """A GPT-NeoX, which has a LayerNorm and a GELU of erf, and the tokenizer without which Olive takes no folder."""
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    config = GPTNeoXConfig(
        vocab_size=words, max_position_embeddings=64, hidden_size=64, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=256, bos_token_id=0, eos_token_id=0, initializer_range=0.1,
    )  # fmt: skip
    GPTNeoXForCausalLM(config).eval().save_pretrained(folder)  # type: ignore[no-untyped-call]
    _save_tokenizer(folder, words)


def _save_tokenizer(folder: Path, words: int) -> None:
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel

    names = {f"w{place}": place for place in range(words)}
    Tokenizer(WordLevel(names, unk_token="w0")).save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "w0", "eos_token": "w0"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
