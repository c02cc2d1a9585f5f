"""Choose the coefficients of parity shards, and bound the error of what is decoded with them.

Hadidi, section 6.2, adds up the shards: one loss is then a subtraction. For more losses every square part of the
coefficients must be invertible, and well so: decoding multiplies the rounding errors of the tensors that it uses. Structured
codes of finite fields do badly there (the worst amplification of a Vandermonde code of 8 + 3 is 1,090), so the coefficients
are searched for.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

#: No code's bound may be larger: it is what HyPS promises of results that are not bit for bit (`hyps.compiler.tolerance`).
LARGEST_ERROR = 1e-4
#: The most square parts of the coefficients that a search looks at: codes with more are far from keeping the bound.
_MOST_PARTS = 1_500
#: The search: so many climbs, each of so many steps; fewer for large codes, so that it takes half a second.
_SEED, _RESTARTS, _STEPS, _LEAST_STEPS, _PARTS = 6, 8, 250, 20, 40_000
#: Each step tries so many changes; their length shrinks where none is better.
_TRIED, _FIRST_STEP, _LAST_STEP = 16, 0.3, 1e-4
Matrix = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Code:
    """The coefficients of parity shards, a row for each; for the rest see `hyps.runtime.bundle.codes.CodeRecord`."""

    coefficients: tuple[tuple[float, ...], ...]
    amplification: float
    error_bound: float


def decoding_rows(coefficients: Matrix) -> Matrix:
    """Return how parity tensors make up the lost shards, in all patterns of losses: a row for each lost shard of a pattern.

    With t shards lost, t parity tensors are used, whichever came. A lost shard is the sum of them, less the other shards'
    parts in them, times a row of the inverse of the t x t part of the coefficients. A part without an inverse has infinite
    numbers. The first axes may hold several sets of coefficients.
    """
    *sets, count, width = coefficients.shape
    found = []
    for lost in range(1, min(count, width) + 1):
        rows, columns = _patterns(count, width, lost)
        inverse = _inverses(coefficients[..., rows[:, :, None], columns[:, None, :]])
        full = np.zeros((*inverse.shape[:-1], count))
        np.put_along_axis(full, np.broadcast_to(rows[:, None, :], inverse.shape), inverse, axis=-1)
        found.append(full.reshape(*sets, -1, count))
    return np.concatenate(found, axis=-2)


@lru_cache(maxsize=64)
def _patterns(count: int, width: int, lost: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the parity tensors and the lost shards of every pattern of ``lost`` losses."""
    pairs = itertools.product(itertools.combinations(range(count), lost), itertools.combinations(range(width), lost))
    rows, columns = zip(*pairs, strict=True)
    return np.array(rows), np.array(columns)


def _inverses(parts: Matrix) -> Matrix:
    """Return the inverses of the matrices in the last two axes; those of singular ones are infinite."""
    size = parts.shape[-1]
    with np.errstate(divide="ignore", invalid="ignore"):
        if size == 1:
            return 1 / parts
        if size == 2:
            (a, b), (c, d) = np.moveaxis(parts, (-2, -1), (0, 1))
            adjugate = np.moveaxis(np.array([[d, -b], [-c, a]]), (0, 1), (-2, -1))
            inverse = adjugate / (a * d - b * c)[..., None, None]
            return np.where(np.isfinite(inverse), inverse, np.inf)
        if size == 3:
            a, b, c = np.moveaxis(parts, -2, 0)
            columns = np.array([np.cross(b, c), np.cross(c, a), np.cross(a, b)])
            inverse = np.moveaxis(columns, 0, -1) / (a * columns[0]).sum(axis=-1)[..., None, None]
            return np.where(np.isfinite(inverse), inverse, np.inf)
    try:
        return np.asarray(np.linalg.inv(parts), np.float64)
    except np.linalg.LinAlgError:
        return np.full(parts.shape, np.inf)


def amplification(coefficients: Matrix) -> Matrix:
    """Return the most by which decoding enlarges the errors of parity tensors, over all patterns of losses.

    The error of a parity tensor grows with its size, which is that of a shard times the sum of the absolute values of its
    row of coefficients. The first axes may hold several sets of coefficients.
    """
    sizes = np.abs(coefficients).sum(axis=-1)[..., None]
    enlarged: Matrix = (np.abs(decoding_rows(coefficients)) @ sizes).max(axis=(-2, -1))
    return enlarged


def is_searchable(shards: int, parity: int) -> bool:
    """Return whether coefficients of so many shards are looked for."""
    return parity == 1 or _parts(shards, parity) <= _MOST_PARTS


def _parts(shards: int, parity: int) -> int:
    """Return the number of square parts of the coefficients."""
    return sum(math.comb(shards, lost) * math.comb(parity, lost) for lost in range(1, parity + 1))


@lru_cache(maxsize=64)
def code_coefficients(shards: int, parity: int) -> tuple[tuple[float, ...], ...]:
    """Return the coefficients of ``parity`` parity shards over ``shards`` shards: a row of numbers for each parity shard.

    They are ones for one parity shard. For more, hill climbing from random unit columns looks for the least `amplification`;
    the seed is fixed.
    """
    if parity == 1:
        return ((1.0,) * shards,)
    random = np.random.default_rng(_SEED)
    steps = max(_LEAST_STEPS, min(_STEPS, _PARTS // _parts(shards, parity)))
    climbs = [_climbed(shards, parity, steps, random) for _ in range(_RESTARTS)]
    best = min(climbs, key=lambda each: float(amplification(each)))
    return tuple(tuple(map(float, row)) for row in best)


@lru_cache(maxsize=64)
def least_amplification(shards: int, parity: int) -> float:
    """Return the amplification of `code_coefficients`."""
    return float(shards) if parity == 1 else float(amplification(np.array(code_coefficients(shards, parity))))


def _climbed(shards: int, parity: int, steps: int, random: np.random.Generator) -> Matrix:
    """Return the coefficients at the end of one climb: each step tries several changes of one column, and takes the best."""
    tried: Matrix = random.standard_normal((_TRIED, parity, shards))
    tried /= np.linalg.norm(tried, axis=1, keepdims=True)
    best: Matrix = tried[0]
    least, length = math.inf, _FIRST_STEP
    for _ in range(steps):
        enlarged = amplification(tried)
        nearest = int(enlarged.argmin())
        if enlarged[nearest] < least:
            best, least, length = tried[nearest], float(enlarged[nearest]), min(_FIRST_STEP, length * 1.5)
        else:
            length = max(_LAST_STEP, length * 0.9)
        tried = np.repeat(best[None], _TRIED, axis=0)
        columns = random.integers(shards, size=_TRIED)
        tried[np.arange(_TRIED), :, columns] += length * random.standard_normal((_TRIED, parity))
    return best


def decoding_error(amplification: float, products: int, unit_roundoff: float) -> float:
    """Return the bound of a decoded value's error, as a part of the operator's largest result.

    A result is a sum of ``products`` products, each operation of which rounds by up to ``unit_roundoff`` (2^-24 for
    float32). Roundings are independent of each other, so that their sum grows like the square root of the length (Higham and
    Mary, 2019, doi:10.1137/18M1226312), and the largest result is some times a typical one. The two numbers were measured:
    of 240 inputs, normal, positive or sparse, the worst error over all losses was 0.6 of this for 2 + 1 shards, and at most
    0.35 for 4 + 2 to 8 + 3, for sums of 512 to 25,088 products.
    """
    return amplification * unit_roundoff * (8 + math.sqrt(products) / 3)
