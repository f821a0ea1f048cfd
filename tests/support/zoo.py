"""Stages the zoo: each animal with random weights and samples made for it, and models of the transformers library."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from packhouse_zoo import ZOO, Animal

import packhouse
from packhouse.architectures import transformers as pretrained

ROWS, TIME = 16, 6
FORMATS = {"onnx-int8": "off", "torchscript-int8": "off"}
"""Whether INT8 pays is the processor's to say."""
LESS = {"conditional": {"torchscript": "optional"}}
"""What a model can not have, by its code."""
RANGES = {"batch": (1, 8), "time": (4, 12), "past": (1, 12), "nodes": (2, 9)}

TEXT = ["input_ids", "attention_mask"]
SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64, "vocab_size": 40}
SEEN = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64, "image_size": 16}
LIBRARY: dict[str, tuple[str, dict[str, Any], list[str], list[str]]] = {
    "bert": ("BertForSequenceClassification", SMALL | {"num_labels": 3}, TEXT, ["logits"]),
    "roberta": ("RobertaModel", SMALL, TEXT, ["last_hidden_state"]),
    "albert": ("AlbertModel", SMALL | {"embedding_size": 16}, TEXT, ["last_hidden_state"]),
    "electra": ("ElectraModel", SMALL | {"embedding_size": 16}, TEXT, ["last_hidden_state"]),
    "distilbert": (
        "DistilBertForTokenClassification",
        {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64, "vocab_size": 40, "num_labels": 3},
        TEXT,
        ["logits"],
    ),
    "gpt2": (
        "GPT2LMHeadModel",
        {"n_embd": 32, "n_layer": 2, "n_head": 2, "vocab_size": 40, "bos_token_id": 1, "eos_token_id": 2},
        TEXT,
        ["logits"],
    ),
    "t5-encoder": (
        "T5EncoderModel",
        {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2, "vocab_size": 40},
        TEXT,
        ["last_hidden_state"],
    ),
    "vit": (
        "ViTForImageClassification",
        SEEN | {"patch_size": 4, "num_labels": 3},
        ["pixel_values"],
        ["logits"],
    ),
    "deit": ("DeiTForImageClassification", SEEN | {"patch_size": 4, "num_labels": 3}, ["pixel_values"], ["logits"]),
    "whisper-encoder": (
        "WhisperForAudioClassification",
        {
            "d_model": 32,
            "encoder_layers": 2,
            "encoder_attention_heads": 2,
            "encoder_ffn_dim": 64,
            "decoder_layers": 1,
            "decoder_attention_heads": 2,
            "decoder_ffn_dim": 64,
            "num_mel_bins": 8,
            "max_source_positions": 16,
            "vocab_size": 40,
            "pad_token_id": 0,
            "classifier_proj_size": 16,
            "num_labels": 3,
        },
        ["input_features"],
        ["logits"],
    ),
}
SHAPES = {"pixel_values": (3, 16, 16), "input_features": (8, 32)}


def stage(kind: str, folder: Path) -> str:
    """The URL of the source."""
    torch.manual_seed(zlib.crc32(kind.encode()))
    return _of_the_library(kind, folder) if kind in LIBRARY else _animal(kind, ZOO[kind], folder)


def _animal(kind: str, animal: Animal, folder: Path) -> str:
    random = np.random.default_rng(0)
    axes = {name: list(shape) for name, (shape, _) in animal.inputs.items()}
    named = {axis for shape in axes.values() for axis in shape if isinstance(axis, str)}
    samples = {}
    for name, (shape, largest) in animal.inputs.items():
        size = [ROWS, *(TIME if isinstance(axis, str) else axis for axis in shape[1:])]
        low = 1 if name == "lengths" else 0
        samples[name] = random.integers(low, largest + 1, size) if largest else random.normal(size=size)
        samples[name] = samples[name].astype(np.int64 if largest else np.float32)
    return packhouse.stage(
        animal.build(),
        to=str(folder / kind),
        name=kind,
        architecture="zoo",
        arguments={"kind": kind},
        inputs=samples,
        outputs=list(animal.outputs),
        axes=axes,
        ranges={axis: RANGES[axis] for axis in named},
        formats=FORMATS | LESS.get(kind, {}),
        announce_to="off",
    ).url


def _of_the_library(kind: str, folder: Path) -> str:
    """Saved as the library saves it, in shards, and loaded from there."""
    import transformers

    name, settings, inputs, outputs = LIBRARY[kind]
    found = getattr(transformers, name)
    saved = folder / "saved" / kind
    found(found.config_class(**settings)).save_pretrained(saved, max_shard_size="30KB")
    model, arguments = pretrained.load(saved, inputs=inputs, outputs=outputs)
    random = np.random.default_rng(0)
    if inputs == TEXT:
        mask = np.ones((ROWS, 8), np.int64)
        mask[1::2, 5:] = 0
        samples = {"input_ids": random.integers(3, 40, (ROWS, 8)), "attention_mask": mask}
        axes = {name: ["batch", "time"] for name in inputs}
        ranges = {"batch": (1, 8), "time": (1, 16)}
    else:
        (pixels,) = inputs
        samples = {pixels: random.normal(size=(ROWS, *SHAPES[pixels])).astype(np.float32)}
        axes, ranges = {}, {"batch": (1, 8)}
    return packhouse.stage(
        model,
        to=str(folder / kind),
        name=kind,
        architecture=pretrained.ARCHITECTURE,
        arguments=arguments,
        inputs=samples,
        outputs=outputs,
        axes=axes,
        ranges=ranges,
        formats=FORMATS,
        announce_to="off",
    ).url
