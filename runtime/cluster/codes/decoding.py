"""Compute missing shards of a coded group from the others, and find wrong ones, in double precision.

A group of k shards and R parity shards is a linear code over the real numbers: any k answers give all others (Hadidi,
section 6.2.3). Answer m is the sum of w_b times answer b over a *base* of k answers b; the weights w solve a linear system
of at most R equations. Values are computed block by block, so that memory does not grow with the tensors.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from hyps.runtime.bundle.codes import CodeRecord
from hyps.runtime.bundle.manifest import TensorRecord
from hyps.runtime.errors import InputError

#: The values of a tensor that are computed at a time: as many of each answer stay in a processor's cache.
_BLOCK = 1 << 14
_Doubles = NDArray[np.float64]
#: Answers must agree within this part at least: what double precision (2^-53) makes of sums and equations. Of integers of 32
#: bits it is a thousandth or less, where one that is wrong by 1 differs by the inverse of a small whole number.
_LEAST_TOLERANCE = 2.0**-46
#: A tensor's bytes.
Data = bytes | bytearray


def decode(
    code: CodeRecord, record: TensorRecord, answers: Mapping[int, Data], wanted: Sequence[int]
) -> dict[int, bytearray]:
    """Return the ``wanted`` shards by number, from at least k ``answers``: shards are 0 to k - 1, parity shards follow.

    Raises `InputError` where a value is not finite, as an infinite answer hides all others.
    """
    base = best_base(code, answers, wanted)
    weights = np.stack([base_weights(code, base, number) for number in wanted]) if wanted else np.empty((0, len(base)))
    kind = np.dtype(record.dtype)
    decoded = {number: bytearray(record.nbytes) for number in wanted}
    targets = [np.frombuffer(data, kind) for data in decoded.values()]
    for start, columns in _blocks(answers, base, kind):
        values = weights @ columns
        if not np.isfinite(values).all():
            raise InputError(f"{code.name} cannot be decoded: a value is infinite or no number", "serve it with --exact")
        if kind.kind in "iu":
            limits = np.iinfo(kind)
            values = np.clip(np.rint(values), limits.min, limits.max)
        for target, row in zip(targets, values, strict=True):
            target[start : start + len(row)] = row
    return decoded


def disagreeing(code: CodeRecord, record: TensorRecord, answers: Mapping[int, Data]) -> tuple[int, ...] | None:
    """Return which of more than k answers are wrong; nothing if all agree, None if it cannot be told which are wrong.

    With k + n answers, any n - 1 wrong ones are noticed, and the fewer half of n named: the only ones without which the
    others agree.
    """
    if agree(code, record, answers):
        return ()
    most = (len(answers) - len(code.shards)) // 2
    for count in range(1, most + 1):
        found = [
            wrong
            for wrong in itertools.combinations(answers, count)
            if agree(code, record, {number: data for number, data in answers.items() if number not in wrong})
        ]
        if len(found) == 1:
            return found[0]
    return None


def agree(code: CodeRecord, record: TensorRecord, answers: Mapping[int, Data]) -> bool:
    """Return whether the answers are a code word: those after the best k are what these give, within the error bound."""
    base = best_base(code, answers, [number for number in range(len(code.shards)) if number not in answers])
    others = [number for number in answers if number not in base]
    weights = np.stack([base_weights(code, base, number) for number in others]) if others else np.empty((0, len(base)))
    kind = np.dtype(record.dtype)
    tolerance = max(code.error_bound, _LEAST_TOLERANCE) * (1 + np.abs(weights).sum(axis=1))
    largest, scale = np.zeros(len(others)), 0.0
    for start, columns in _blocks(answers, base, kind):
        stop = start + columns.shape[1]
        found = np.stack([np.frombuffer(answers[number], kind)[start:stop] for number in others]).astype(np.float64)
        largest = np.maximum(largest, np.abs(weights @ columns - found).max(axis=1, initial=0))
        scale = max(scale, float(np.abs(columns).max(initial=0)), float(np.abs(found).max(initial=0)))
    return bool((largest <= tolerance * scale).all())  # False for values that are no numbers


def best_base(code: CodeRecord, present: Collection[int], wanted: Iterable[int]) -> tuple[int, ...]:
    """Return k of the answers that are there: all shards, and the parity shards that enlarge errors least."""
    count = len(code.shards)
    shards = [number for number in sorted(present) if number < count]
    parity = [number for number in sorted(present) if number >= count]
    wanted = [*wanted]
    if len(parity) == count - len(shards):
        return (*shards, *parity)

    def growth(chosen: tuple[int, ...]) -> float:
        base = (*shards, *chosen)
        sums = [float(np.abs(base_weights(code, base, number)).sum()) for number in wanted]
        return max(sums, default=0.0) if np.isfinite(sums).all() else np.inf

    return (*shards, *min(itertools.combinations(parity, count - len(shards)), key=growth))


def base_weights(code: CodeRecord, base: Sequence[int], number: int) -> _Doubles:
    """Return what each answer of a ``base`` counts for in answer ``number``.

    They are no numbers where the coefficients, which anybody may have written, let nothing be decoded.
    """
    return _solved(code.coefficients, tuple(base), number)


@lru_cache(maxsize=256)
def _solved(coefficients: tuple[tuple[float, ...], ...], base: tuple[int, ...], number: int) -> _Doubles:
    """Return the weights of a base: the same few patterns of losses come again with every inference."""
    count = len(base)
    rows = np.vstack([np.eye(count), np.asarray(coefficients, np.float64)])
    try:
        found = np.linalg.solve(rows[list(base)].T, rows[number])
    except np.linalg.LinAlgError:
        found = np.full(count, np.nan)
    found.flags.writeable = False
    return found


def _blocks(answers: Mapping[int, Data], base: Sequence[int], kind: np.dtype[np.generic]) -> Iterable[tuple[int, _Doubles]]:
    """Yield the first value's place, and the values of each answer of a base as a row, block by block.

    The next block takes the memory of the one before: fresh memory would cost more than the sums.
    """
    views = [np.frombuffer(answers[number], kind) for number in base]
    buffer = np.empty((len(views), min(_BLOCK, len(views[0]))))
    for start in range(0, len(views[0]), _BLOCK):
        columns = buffer[:, : len(views[0]) - start]
        for row, view in zip(columns, views, strict=True):
            row[:] = view[start : start + _BLOCK]
        yield start, columns
