"""Draw inputs for a network: seeded values of its types and shapes, in ranges that networks take."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hyps.runtime.bundle.manifest import Manifest
from hyps.runtime.errors import InputError

#: Strings for random inputs.
_WORDS = ("", "a", "red", "the quick brown fox")


def random_inputs(manifest: Manifest, count: int, seed: int = 0) -> Iterator[Mapping[str, NDArray[Any]]]:
    """Yield ``count`` seeded inputs: standard normal floats, integers from 0 to 9, and booleans.

    Raises `InputError` for an input of a type that numpy lacks, such as bfloat16.
    """
    rng = np.random.default_rng(seed)
    for _ in range(count):
        yield {name: _random(rng, manifest.tensors[name].dtype, manifest.tensors[name].shape) for name in manifest.inputs}


def _random(rng: np.random.Generator, dtype: str, shape: tuple[int, ...]) -> NDArray[Any]:
    try:
        kind = np.dtype(dtype).kind
    except TypeError:
        raise InputError(f"numpy has no type {dtype}, so that no random inputs can be drawn") from None
    if kind == "U":
        return rng.choice(np.array(_WORDS), shape)
    if kind in "iu":
        return rng.integers(0, 10, shape).astype(dtype)
    if kind == "b":
        return rng.integers(0, 2, shape).astype(dtype)
    return rng.standard_normal(shape).astype(dtype)
