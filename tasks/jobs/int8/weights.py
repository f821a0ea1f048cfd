"""Weights as small integers: scales, rounding, packing. Pure; one tensor at a time.

Symmetric throughout: a weight is `integer * scale`, with no zero point to carry through a product.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from packhouse.formats.arrays import Array

FULL = 127
"""Largest absolute value of an 8-bit weight."""

PORTABLE = 64
"""Largest absolute value of a weight that no processor saturates on: without VNNI, two products of an activation (at
most 255) and a weight are added in 16 bits, and 2 * 255 * 64 still fits there."""


@dataclass(frozen=True)
class Quantised:
    """values: int8, as the weight. scale: float32, () or (channels,)."""

    values: NDArray[np.int8]
    scale: NDArray[np.float32]


def scale_of(weight: Array, *, limit: int, axis: int | None) -> NDArray[np.float32]:
    """One for the tensor, or one for each entry of `axis`. An all-zero channel has 1."""
    others = None if axis is None else tuple(n for n in range(weight.ndim) if n != axis % weight.ndim)
    largest = np.maximum(weight.max(axis=others), -weight.min(axis=others))
    return np.asarray(np.where(largest > 0, largest / np.float32(limit), 1), np.float32)


def quantised(weight: Array, *, limit: int, axis: int | None) -> Quantised:
    scale = scale_of(weight, limit=limit, axis=axis)
    return Quantised(rounded(weight, scale, limit=limit, axis=axis), scale)


def rounded(weight: Array, scale: NDArray[np.float32], *, limit: int, axis: int | None) -> NDArray[np.int8]:
    """To the nearest, ties to even."""
    shape = [1] * weight.ndim
    if axis is not None:
        shape[axis] = -1
    scaled: NDArray[np.float32] = np.divide(weight, scale.reshape(shape), dtype=np.float32)
    np.rint(scaled, out=scaled)
    np.clip(scaled, -limit, limit, out=scaled)
    return scaled.astype(np.int8)


@dataclass(frozen=True)
class Blocks:
    """Weights of MatMulNBits. packed: uint8, (columns, blocks, block * bits / 8), the lower half of a byte first.
    scale: float32, (columns * blocks,). A weight is (integer - 2^(bits - 1)) * scale."""

    packed: NDArray[np.uint8]
    scale: NDArray[np.float32]


def in_blocks(weight: Array, *, bits: int, block: int) -> Blocks:
    """weight: float32, (columns, depth): the matrix as the product reads it, turned. The value of a block that is
    largest in amount becomes the lowest integer, which has no positive counterpart."""
    columns, depth = weight.shape
    count = -(-depth // block)
    padded = np.zeros((columns, count * block), np.float32)
    padded[:, :depth] = weight
    parts = padded.reshape(columns, count, block)
    middle = 2 ** (bits - 1)
    largest = np.take_along_axis(parts, np.abs(parts).argmax(axis=-1, keepdims=True), axis=-1)
    scale = np.where(largest == 0, np.float32(1), largest / np.float32(-middle)).astype(np.float32)
    integers = np.clip(np.rint(parts / scale) + middle, 0, 2 * middle - 1).astype(np.uint8)
    packed = integers if bits == 8 else integers[..., ::2] | integers[..., 1::2] << 4
    return Blocks(np.ascontiguousarray(packed), scale.reshape(-1))
