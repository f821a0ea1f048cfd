"""Looks at the ONNX files that the tools leave, and is none of them: ONNX Runtime, numpy, and the model in PyTorch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime
import torch

from bench.peers.given import CAUSAL, Given

RTOL, ATOL = 1e-3, 1e-3
TOKEN_KINDS = "token_type_ids"


def answers(file: str, rows: dict[str, np.ndarray]) -> np.ndarray | None:
    """Its first output, float32; None where it fails on them."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    given = feed([one.name for one in session.get_inputs()], rows)
    try:
        got = session.run(None, given)
    except Exception:  # ONNX Runtime's errors have no common class
        return None
    return np.asarray(got[0])


def feed(wanted: Sequence[str], rows: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """optimum's BERT asks for the kinds of tokens too, which are 0 where the model is not told."""
    return {name: np.zeros_like(rows["input_ids"]) if name == TOKEN_KINDS else rows[name] for name in wanted}


def differ(given: Given, one: str, other: str) -> bool:
    """Whether two files answer any batch otherwise."""
    for rows in _batches(given):
        left, right = answers(one, rows), answers(other, rows)
        if left is None or right is None or not np.array_equal(left, right):
            return True
    return False


def unlike_the_model(given: Given, file: str) -> bool:
    """By more than a thousandth, on any batch: enough for a branch that is lost."""
    module = given.module()
    for rows in _batches(given):
        with torch.no_grad():
            expected = module(*(torch.from_numpy(value) for value in rows.values())).numpy()
        got = answers(file, rows)
        if got is None or got.shape != expected.shape or not np.allclose(got, expected, RTOL, ATOL):
            return True
    return False


def _batches(given: Given) -> list[dict[str, np.ndarray]]:
    if given.kind == CAUSAL:
        ids = np.random.default_rng(0).integers(1, 100, (7, 5))
        samples = {
            "input_ids": ids,
            "attention_mask": np.ones_like(ids),
            "position_ids": np.arange(5)[None].repeat(7, 0),
        }
    else:
        samples = given.samples()
    sizes = (1, 2, 7, *(1 for _ in range(20)))
    cut = [{name: rows[place : place + size] for name, rows in samples.items()} for place, size in enumerate(sizes)]
    return [*(rows for rows in cut if len(next(iter(rows.values())))), _zeros(cut[1])]


def _zeros(rows: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    first = next(iter(rows))
    return rows | {first: np.zeros_like(rows[first])}


def same_bytes(one: str, other: str) -> bool:
    return Path(one).read_bytes() == Path(other).read_bytes()
